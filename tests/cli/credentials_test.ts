import { assert, assertEquals, assertThrows } from "@std/assert";
import { CommandCredentials } from "../../src/cli/credentials.ts";
import { VolcastError } from "../../src/core/mod.ts";
import { fails, inDirectory } from "../helpers/cli.ts";
import { test } from "../helpers/strict.ts";

const [A, B] = ["http://a.example:8080", "https://a.example:8080"];

/** Credentials of a file, or of a variable, and what they said. */
async function withCredentials(
  from: { text?: string; token?: string },
  work: (credentials: CommandCredentials, said: string[]) => void,
): Promise<void> {
  await inDirectory((directory) => {
    const path = `${directory}/token`;
    if (from.text !== undefined) Deno.writeTextFileSync(path, from.text, { mode: 0o600 });
    const said: string[] = [];
    // Not by the process's own variables: test files run at once share them.
    using credentials = new CommandCredentials(
      from.text === undefined ? {} : { "token-file": path },
      (text) => said.push(text),
      (name) => name === "VOLCAST_TOKEN" ? from.token : undefined,
    );
    work(credentials, said);
    return Promise.resolve();
  });
}

test("each server gets the token of its own line, and no other", () =>
  withCredentials({ text: `${A}/ one\n${B} two\n`, token: "mine" }, (credentials, said) => {
    credentials.nameServers([A, B, "http://other.example"]);
    assertEquals(credentials.tokenFor(`${A}/images/x?y`), "one");
    assertEquals(credentials.tokenFor(B), "two");
    // Not the variable's either: the file says all there is to say.
    assertEquals(credentials.tokenFor("http://other.example"), undefined);
    assertEquals(credentials.tokenFor("http://a.example:8081"), undefined);
    assertEquals(said, []);
  }));

test("a token that says no server goes to the one that is named, and to none before", () =>
  withCredentials({ text: "one\n" }, (credentials) => {
    assertEquals(credentials.tokenFor(A), undefined);
    credentials.nameServers(["site.vol", `${A}/`]);
    assertEquals(credentials.tokenFor(A), "one");
    assertEquals(credentials.tokenFor(B), undefined);
    const error = assertThrows(() => credentials.nameServers([B]), VolcastError, B);
    assert(error.hint.includes("URL TOKEN") && !error.message.includes("one\n"), error.hint);
  }));

test("VOLCAST_TOKEN goes to the first of several servers, and that is said", () =>
  withCredentials({ token: "one" }, (credentials, said) => {
    credentials.nameServers([A, B]);
    credentials.nameServers([B, A]);
    assertEquals([credentials.tokenFor(A), credentials.tokenFor(B)], ["one", undefined]);
    assertEquals(said.length, 1);
    assert(said[0].includes(A) && said[0].includes(B), said[0]);
  }));

test("a file that others can read is told of, and a variable that no header can have is refused", async () => {
  await withCredentials({ text: "one\n" }, (_, said) => assertEquals(said, []));
  await inDirectory((directory) => {
    Deno.writeTextFileSync(`${directory}/token`, "one\n", { mode: 0o644 });
    const said: string[] = [];
    using _ = new CommandCredentials(
      { "token-file": `${directory}/token` },
      (text) => said.push(text),
    );
    assert(said.length === 1 && said[0].includes("chmod 600"), said.join());
    return Promise.resolve();
  });
  const error = await assertRejectsUsage({ token: "se cret" });
  assert(error.message.includes("VOLCAST_TOKEN") && !error.message.includes("cret"), error.message);
  await inDirectory(async (directory) => {
    const pull = ["pull", `${directory}/a.vol`, "--site", "paris", "--parent", A];
    await fails(2, /there is no such file/, ...pull, "--token-file", `${directory}/none`);
    await fails(2, /there is no such file/, ...pull, "--ca-file", `${directory}/none`);
    Deno.writeTextFileSync(`${directory}/no.pem`, "no");
    await fails(2, /no certificate/, ...pull, "--ca-file", `${directory}/no.pem`);
    const withPassword = ["pull", `${directory}/a.vol`, "--site", "p", "--parent"];
    const { err } = await fails(2, /password/, ...withPassword, "http://me:hidden@a.example");
    assert(!err.includes("hidden"), err);
    const wrong = await fails(2, /parent/, ...withPassword, "ftp://me:hidden@a.example");
    assert(!wrong.err.includes("hidden"), wrong.err);
  });
});

async function assertRejectsUsage(from: { token: string }): Promise<VolcastError> {
  try {
    await withCredentials(from, () => {});
  } catch (error) {
    if (error instanceof VolcastError && error.kind === "usage") return error;
    throw error;
  }
  throw new Error("It was taken");
}

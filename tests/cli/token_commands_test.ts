import { assert, assertEquals } from "@std/assert";
import { digestOf, parseTokens } from "../../src/http/mod.ts";
import { fails, inDirectory, json, ok, volcast } from "../helpers/cli.ts";
import { test } from "../helpers/strict.ts";

test("token create prints the token once and adds its digest, list shows it, revoke takes it away", () =>
  inDirectory(async (directory) => {
    const file = `${directory}/tokens`;
    const create = ["token", "create", "paris", "--scope", "replicate", "--site", "paris"];
    const made = await volcast(...create, "--into", file);
    assertEquals(made.code, 0, made.err);
    const token = made.out.trim();
    assert(/^volcast_[\w-]{43}$/.test(token), made.out);
    assert(!made.err.includes(token) && !Deno.readTextFileSync(file).includes(token), made.err);
    const [known] = parseTokens(Deno.readTextFileSync(file));
    assertEquals(known.digest, digestOf(token));
    assertEquals([known.name, known.scopes, known.site], ["paris", ["replicate"], "paris"]);

    const before = Deno.readTextFileSync(file);
    await fails(1, /it has one of this name/, ...create, "--into", file);
    await fails(2, /no such scope/, "token", "create", "x", "--scope", "root", "--into", file);
    await fails(2, /--scope is missing/, "token", "create", "x", "--into", file);
    await fails(2, /characters/, "token", "create", "a b", "--scope", "read", "--into", file);
    assertEquals(Deno.readTextFileSync(file), before);

    // What people wrote stays as it is.
    Deno.writeTextFileSync(file, `${before}\n# for the people in Rome`);
    Deno.chmodSync(file, 0o640);
    await ok("token", "create", "ci", "--scope", "write,read", "--into", file);
    assertEquals(Deno.statSync(file).mode! & 0o777, 0o640);
    assertEquals(await json("token", "list", file).then(({ tokens }) => tokens.length), 2);
    assert(/^ci {5}read,write/m.test(await ok("token", "list", file)));
    await ok("token", "revoke", "paris", "--from", file);
    await fails(1, /has none of this name/, "token", "revoke", "paris", "--from", file);
    const text = Deno.readTextFileSync(file);
    assert(text.includes("\n# for the people in Rome\nci read,write sha256:"), text);

    // The last one: the file says that there is none, and is not as if it had been cut off.
    Deno.writeTextFileSync(
      file,
      text.split("\n").filter((line) => !line.startsWith("#")).join("\n"),
    );
    await ok("token", "revoke", "ci", "--from", file);
    assertEquals(parseTokens(Deno.readTextFileSync(file)), []);
    assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name), ["tokens"]);
  }));

test("token create without a file shows the line for it", async () => {
  const { out, err } = await volcast("token", "create", "ci", "--scope", "write");
  const [known] = parseTokens(err.split("\n")[1]);
  assertEquals(known.digest, digestOf(out.trim()));
  const made = await json("token", "create", "ci", "--scope", "write", "--site", "paris");
  assertEquals(parseTokens(made.line)[0].digest, digestOf(made.token));
});

test("a damaged file, or one that somebody else changes, is not changed", () =>
  inDirectory(async (directory) => {
    const file = `${directory}/tokens`;
    const create = ["token", "create", "ci", "--scope", "write", "--into", file];
    Deno.writeTextFileSync(file, "ci write sha256:12\n");
    await fails(4, /line 1/, ...create);
    await fails(4, /line 1/, "token", "list", file);
    assertEquals(Deno.readTextFileSync(file), "ci write sha256:12\n");
    Deno.removeSync(file);
    await fails(1, /no such file/, "token", "revoke", "ci", "--from", file);
    Deno.writeTextFileSync(`${file}.new`, "");
    await fails(5, /somebody else/, ...create);
    Deno.removeSync(`${file}.new`);
    // Through a link: what it leads to is replaced, and the link stays.
    Deno.mkdirSync(`${directory}/real`);
    Deno.writeTextFileSync(`${directory}/real/tokens`, "# none\n");
    Deno.symlinkSync(`${directory}/real/tokens`, file);
    await ok(...create);
    assert(Deno.lstatSync(file).isSymlink);
    assertEquals(parseTokens(Deno.readTextFileSync(`${directory}/real/tokens`)).length, 1);
  }));

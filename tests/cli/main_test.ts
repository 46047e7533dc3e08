import { assert, assertEquals, assertMatch } from "@std/assert";
import { allCommands, COMMAND_NAMES } from "../../src/cli/command_table.ts";
import { VERSION } from "../../src/cli/version.ts";
import { fails, inDirectory, json, ok, volcast } from "../helpers/cli.ts";
import { test } from "../helpers/strict.ts";

const COMMANDS = await allCommands();

test("volcast alone, --help and help list every command and the exit codes", async () => {
  const texts = [await ok(), await ok("--help"), await ok("-h"), await ok("help")];
  assertEquals(new Set(texts).size, 1);
  for (const { name } of COMMANDS) assert(texts[0].includes(`  ${name.join(" ")}`), name.join(" "));
  assertMatch(texts[0], /Exit codes:\n {2}0 {2}done/);
});

test("the commands are those of the contract", () => {
  assertEquals(COMMANDS.map(({ name }) => name.join(" ")), COMMAND_NAMES);
  assertEquals(
    COMMANDS.map(({ name }) => name.join(" ")).sort(),
    "apply cat copy demo diff export fsck image import info init keygen ls mirror plan,pointer list,pointer set,promote publish pull reintegrate repair resync seal serve,snapshot create,snapshot delete,snapshot list,snapshot shadow,stat status verify,tape extract,tape list,tape read,tape write,token create,token list,token revoke,version"
      .split(",").flatMap((part) =>
        /^(pointer|snapshot|tape|token)/.test(part) ? [part] : part.split(" ")
      )
      .sort(),
  );
});

test("every command has help with examples, its options and the exit codes", async () => {
  for (const { name, options, examples } of COMMANDS) {
    const help = await ok(...name, "--help");
    assertEquals(help, await ok("help", ...name));
    assertEquals(help, await ok(...name, "-h", "more", "words", "than", "it", "takes"));
    const words = name.join(" ");
    assert(examples.length > 0, words);
    for (const example of examples) {
      assert(example.includes(`volcast ${words}`), example);
      assert(help.includes(example), example);
    }
    for (const option of Object.keys(options)) assert(help.includes(`--${option}`), option);
    assertMatch(help, /Exit codes:/);
    for (const line of help.split("\n")) assert(line.length <= 110, `${words}: ${line}`);
  }
});

test("commands that report something do so as JSON", () => {
  const without = COMMANDS.filter(({ options }) => options.json === undefined)
    .map(({ name }) => name.join(" "));
  assertEquals(without, [
    "cat",
    "snapshot delete",
    "image",
    "tape extract",
    "serve",
    "token revoke",
    "demo",
  ]);
});

test("the first of two words lists what may follow", async () => {
  const list = await ok("snapshot");
  assertEquals(list, await ok("snapshot", "--help"));
  assertEquals(list, await ok("help", "snapshot"));
  assertMatch(list, /snapshot create VOLUME NAME/);
  assert(!list.includes("pointer"));
});

test("an unknown command is a usage error that names the nearest one", async () => {
  await fails(
    2,
    /'volcast pubish': there is no such command\nDid you mean: volcast publish/,
    "pubish",
  );
  await fails(2, /Did you mean: volcast snapshot\?/, "snapshots", "list");
  await fails(
    2,
    /'volcast snapshot lst'.*\nDid you mean: volcast snapshot list/,
    "snapshot",
    "lst",
  );
  await fails(2, /Did you mean: volcast pointer set/, "help", "pointer", "sett");
  await fails(2, /there is no such command/, "--nonsense");
  await fails(2, /there is no such command/, "");
});

test("arguments that do not fit are usage errors", async () => {
  await fails(2, /there is no option --nope\nSee: volcast ls --help/, "ls", "x.vol", "--nope");
  await fails(2, /0 arguments given, wanted: VOLUME PATH/, "cat");
  await fails(2, /4 arguments given/, "cat", "a", "b", "c", "d");
  await fails(2, /--at needs one value/, "ls", "x.vol", "--at=");
  await fails(2, /--at '\.\.\/x': it cannot be the name/, "ls", "x.vol", "--at", "../x");
  await fails(2, /--site is missing/, "pull", "x.vol", "--parent", "http://127.0.0.1:1");
});

test("version tells the program's, Deno's and the formats'", async () => {
  assertEquals(await json("version"), {
    version: VERSION,
    deno: Deno.version.deno,
    volumeFormat: 1,
    streamFormat: 1,
  });
  assertEquals((await ok("--version")).trim(), VERSION);
  assertMatch(await ok("version"), /^volcast +\d+\.\d+\.\d+\nDeno /);
});

test("what was not foreseen is told with its place, exit code 1", async () => {
  await inDirectory(async (directory) => {
    // A path that is no text for the host.
    const { code, err } = await volcast("info", `${directory}/a\0b`);
    assertEquals(code, 1);
    assertMatch(err, /^volcast: /);
  });
});

test("an option is given once, unless it may be repeated", async () => {
  await fails(2, /--at is given twice/, "ls", "site.vol", "--at", "a", "--at", "b");
  await fails(2, /--size needs one value/, "init", "site.vol", "--size=");
  // Two parents are fine; what is missing then is the name.
  await fails(2, /--site/, "pull", "x.vol", "--parent", "http://a", "--parent", "http://b");
});

/**
 * Command lines and settings: units, expressions, tokens in the environment. Each is done or refused with an
 * exit code that is documented, and never with a stack.
 *
 * @module
 */

import { parseExpression } from "../../../src/core/mod.ts";
import { siteTokensFromEnvironment } from "../../../src/cli/environment.ts";
import { allCommands } from "../../../src/cli/command_table.ts";
import { BYTE_SIZE, DURATION_MS } from "../../../src/cli/units.ts";
import { volcast } from "../../helpers/cli.ts";
import type { Random } from "../../helpers/random.ts";
import { makeScene } from "../scene.ts";
import type { Input, Step, Target } from "../target.ts";
import type { Watch } from "../watch.ts";

const COMMANDS = await allCommands();
/** They go on until they are stopped. */
const ENDLESS = ["serve", "demo", "mirror"];
const WORDS = [
  "site.vol",
  "new.vol",
  "missing.vol",
  "tree",
  "file",
  "",
  "--",
  "-x",
  "/dev/null",
  ".",
  "..",
  "s1",
  "s3",
  "master",
  "s4 - s3",
  "s4 + (s3",
  "active",
  "name with space",
  "\u0000",
  "\ud800",
  "a".repeat(5000),
  "http://127.0.0.1:1",
  "http://",
  "http://[::1",
  "site.vol:/x",
  "site.vol:/../x",
  "a,b,c",
  "__proto__",
  "0",
  "-1",
  "1e9",
  "4GiB",
  "1.5MiB",
  "99999999TiB",
  "1KiB",
  "30s",
  "9999d",
  "NaN",
  "5-2",
  "0-4294967295",
  "*",
  "--help",
  "--json",
];
const UNITS = [
  "",
  "1",
  "1.",
  ".5",
  "1e3",
  "-1",
  "9".repeat(400),
  "4 GiB",
  "4gib",
  "1b",
  "1 constructor",
];
const TOKENS = [
  "",
  ",",
  "=",
  "a=",
  "=b",
  "a=b,a=c",
  "a=b=c",
  "__proto__=x",
  "a b=c",
  "\u00e9=x",
  "a=b,\n,c=d",
  "x".repeat(300) + "=y",
];
const PARTS = [
  "s1",
  "s3",
  "+",
  "-",
  "&",
  "(",
  ")",
  " ",
  "active",
  "1-00000000",
  "\u00e9",
  ".",
  "%",
  "s1s1",
];

/** See the module. */
export const commandLines: Target = {
  name: "command lines",
  limits: { work: 100_000, arrayBytes: 65 * 2 ** 20, totalBytes: 2 * 2 ** 30 },
  async prepare() {
    const { origin } = await makeScene();
    const volume = new Uint8Array(origin.capacity * 4096);
    origin.read(0, volume);
    const directory = await Deno.makeTempDir({ prefix: "volcast-fuzz-" });
    return {
      make: makeInput,
      run: (input, watch) => run(directory, volume, input, watch),
      close: () => Deno.remove(directory, { recursive: true }),
    };
  },
};

function makeInput(random: Random): Input {
  const kind = random.below(6);
  if (kind === 0) return [{ op: "unit", text: random.pick(UNITS) + random.pick(["", "s", "KiB"]) }];
  if (kind === 1) return [{ op: "tokens", text: random.pick(TOKENS) + random.pick(["", ",b=c"]) }];
  if (kind === 2) {
    const count = random.pick([1, 3, 10, 3000]);
    const parts = Array.from({ length: count }, () => random.pick(PARTS));
    return [{ op: "expression", text: random.oneIn(5) ? "(".repeat(count) : parts.join("") }];
  }
  const command = random.pick(COMMANDS.filter(({ name }) => !ENDLESS.includes(name[0])));
  const steps: Step[] = command.name.map((word) => ({ op: "word", word }));
  const options = Object.keys(command.options ?? {});
  for (let i = random.below(6); i > 0; i--) {
    const word = random.oneIn(3) && options.length > 0
      ? `--${random.pick(options)}`
      : random.pick(WORDS);
    steps.push({ op: "word", word });
  }
  return steps;
}

async function run(
  directory: string,
  volume: Uint8Array,
  input: Input,
  watch: Watch,
): Promise<void> {
  for (const { op, text } of input) {
    if (op === "unit") {
      await watch.attempt("unit", () => {
        const found = [BYTE_SIZE.safeParse(String(text)), DURATION_MS.safeParse(String(text))];
        for (const { success, data } of found) {
          if (success && !(Number.isSafeInteger(data) && data >= 0)) watch.problem(`It is ${data}`);
        }
      });
    } else if (op === "expression") {
      await watch.attempt("expression", () => parseExpression(String(text)));
    } else if (op === "tokens") {
      Deno.env.set("VOLCAST_SITE_TOKENS", String(text));
      await watch.attempt("tokens", siteTokensFromEnvironment);
      Deno.env.delete("VOLCAST_SITE_TOKENS");
    }
  }
  const words = input.filter(({ op }) => op === "word").map(({ word }) => String(word));
  if (words.length === 0 || ENDLESS.includes(words[0])) return;
  const box = `${directory}/box`;
  await Deno.mkdir(`${box}/tree`, { recursive: true });
  await Deno.writeFile(`${box}/site.vol`, volume);
  await Deno.writeTextFile(`${box}/tree/a`, "a");
  await Deno.writeTextFile(`${box}/file`, "no volume");
  const before = Deno.cwd();
  Deno.chdir(box);
  try {
    await watch.attempt(words[0], async () => {
      const { code, err } = await volcast(...words);
      watch.outcomes.set(`exit ${code}`, (watch.outcomes.get(`exit ${code}`) ?? 0) + 1);
      if (![0, 1, 2, 3, 4, 5].includes(code)) watch.problem(`Exit code ${code}: ${err}`);
      if (/^\s+at /m.test(err)) watch.problem(`volcast ${words[0]} said: ${err.slice(0, 1000)}`);
    });
  } finally {
    Deno.chdir(before);
    await Deno.remove(box, { recursive: true });
  }
}

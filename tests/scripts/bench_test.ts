/**
 * The bench measures, and has no figure where the work was not done.
 *
 * @module
 */

import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { isMet, type Line, ratioOf } from "../../scripts/bench/row.ts";
import { tableText } from "../../scripts/bench/table.ts";
import { run, TempDirectory, volcastCommand } from "../e2e/harness.ts";

const BENCH = new URL("../../scripts/bench/main.ts", import.meta.url).pathname;

/** Runs the bench over trees that are next to nothing. */
async function bench(only: string, env: Record<string, string> = {}) {
  const command = [Deno.execPath(), "run", "--frozen", "--no-check", "-A", BENCH];
  return await run([...command, "--tiny", "--json", "--only", only], { env });
}

/** A program that does what volcast does, but for one command. */
function broken(directory: TempDirectory, command: string, instead: string): string {
  const path = directory.file("volcast");
  const words = volcastCommand().map((word) => `'${word}'`).join(" ");
  Deno.writeTextFileSync(
    path,
    `#!/bin/sh\nif [ "$1" = ${command} ]; then ${instead}; fi\nexec ${words} "$@"\n`,
    { mode: 0o755 },
  );
  return path;
}

Deno.test("the bench measures a row, compares its result and prints its ratio", async () => {
  const { code, stdout, stderr } = await bench("wire");
  assertEquals(code, 0, stderr);
  const { lines, failures, machine } = JSON.parse(stdout);
  assertEquals(failures, []);
  assertEquals(lines.length, 2);
  for (const { figure, other, ratio } of lines) assertAlmostEquals(ratio, figure / other, 1e-12);
  assert(machine.cores > 0);
});

Deno.test("the bench has no figure of an export that did not write the tree, and fails", async () => {
  using directory = new TempDirectory();
  const VOLCAST_BIN = broken(directory, "export", 'mkdir "$3"; echo x > "$3/file"; exit 0');
  const { code, stdout } = await bench("export", { VOLCAST_BIN });
  assertEquals(code, 1);
  const { lines, failures } = JSON.parse(stdout);
  assertEquals(lines, []);
  assertEquals(failures.length, 1);
  assertStringIncludes(failures[0].reason, "Cannot count what volcast did");
});

Deno.test("the bench names the rows there are when it is asked for another one", async () => {
  const { code, stderr } = await bench("nonsense");
  assertEquals(code, 1);
  assertStringIncludes(stderr, "There is no row 'nonsense'; there are: full-many");
});

Deno.test("lines of the table: times and costs are ratios the way their targets ask", () => {
  const line = { what: "a pull", unit: "s", figure: 2, against: "rsync", other: 8 } as const;
  const lines: Line[] = [
    { ...line, target: { is: "faster", value: 4 } },
    { ...line, target: { is: "faster", value: 4.1 } },
    { ...line, target: { is: "cost", value: 0.25 } },
    { ...line, unit: "MiB/s", target: { is: "faster", value: 0.25 } },
    { ...line, unit: "failures", target: { is: "none", value: 0 } },
    line,
  ];
  assertEquals(lines.map(ratioOf), [4, 4, 0.25, 0.25, 4, 4]);
  assertEquals(lines.map(isMet), [true, false, true, true, false, undefined]);
  const text = tableText(lines).split("\n");
  assertEquals(text.length, 8);
  assertMatch(text[2], /4\.00x +>= 4x +ok$/);
  assertMatch(text[3], /4\.00x +>= 4.1x +MISSED$/);
});

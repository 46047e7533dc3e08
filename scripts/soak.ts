/**
 * Soaks a real hierarchy, see tests/soak/soak.ts: compiled binaries where VOLCAST_BIN names one or
 * dist/volcast is there, else from source. It fails when a reader of a node that lived failed, something
 * was lost, or a process grew.
 *
 * deno task soak [--minutes 10] [--seed N] [--json] [--verbose]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { soak, type SoakReport } from "../tests/soak/soak.ts";

const options = parseArgs(Deno.args, {
  string: ["minutes", "seed"],
  boolean: ["json", "verbose"],
  unknown: (name: string) => {
    console.error(`Cannot soak: there is no option ${name}`);
    Deno.exit(2);
  },
});
const minutes = Number(options.minutes ?? 10);
const seed = Number(options.seed ?? Math.floor(Math.random() * 2 ** 31));
if (!(minutes > 0) || !Number.isSafeInteger(seed)) {
  console.error("Cannot soak: --minutes takes a number above 0, and --seed a whole one");
  Deno.exit(2);
}
const binary = new URL("../dist/volcast", import.meta.url).pathname;
if (Deno.env.get("VOLCAST_BIN") === undefined && isThere(binary)) {
  Deno.env.set("VOLCAST_BIN", binary);
}
console.error(
  `Soaking ${Deno.env.get("VOLCAST_BIN") ?? "from source"} for ${minutes} minutes, --seed ${seed}`,
);
const report = await soak({
  seed,
  forMs: minutes * 60_000,
  eventsEach: 1,
  ...(options.verbose
    ? { log: (text: string) => console.error(`${new Date().toISOString()} ${text}`) }
    : {}),
});
console.log(options.json ? JSON.stringify(report, null, 2) : textOf(report));
const isGood = report.failures.length === 0 && !report.growths.some(({ hasGrown }) => hasGrown);
Deno.exit(isGood ? 0 : 1);

function textOf(report: SoakReport): string {
  const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
  const events = Object.entries(report.events).map(([name, count]) => `${count} ${name}`);
  return [
    `time       ${report.seconds} s`,
    `readers    ${report.requests} requests, ${mib(report.bytes)} MiB, ` +
    `${report.failures.length} failures, ${report.cutOff} ended with their node`,
    `published  ${report.published} releases, ${report.deleted} snapshots deleted, ` +
    `${report.repeated} asked for again`,
    `pulled     ${report.increments} increments, ${report.fullImages} full images`,
    `events     ${events.join(", ")}; ${report.originKills} kills were the origin's`,
    ...report.growths.filter(({ hasGrown }) => hasGrown !== undefined).map((growth) =>
      `${growth.process.padEnd(10)} ${growth.seconds} s: memory ${mib(growth.bytes[0])} to ` +
      `${mib(growth.bytes[1])} MiB, descriptors ${growth.descriptors.join(" to ")}` +
      (growth.hasGrown ? ": IT GREW" : "")
    ),
    ...report.failures.slice(0, 20).map((text) => `FAILED     ${text}`),
  ].join("\n");
}

function isThere(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

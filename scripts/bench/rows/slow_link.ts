/**
 * Bytes on a slow link, between two releases of software that people install, against `rsync -z`.
 *
 * @module
 */

import { Server } from "../../../tests/e2e/harness.ts";
import { assertSame, digestOfDirectory, digestOfVolume } from "../digest.ts";
import type { Lab } from "../lab.ts";
import { rsyncPull, startRsyncDaemon } from "../peers/rsync.ts";
import { inside } from "../peers/replica.ts";
import { must } from "../process.ts";
import { missing, pathOf, whyMissing } from "../programs.ts";
import { Proxy } from "../../../tests/e2e/proxy.ts";
import { cost, type LeftOut, type Line, type Outcome, type Row } from "../row.ts";
import { assertPulled, pull, type Pulled, setPointer, volcast } from "../volcast.ts";

/** Two releases of one package of the npm registry. */
const PACKAGE = "typescript";
const VERSIONS = ["5.8.3", "5.9.2"] as const;
const RSYNC = "rsync -z";

/** See the module. */
export const slowLink: Row = {
  id: "slow-link",
  title: `bytes of an increment of ${PACKAGE}, ${VERSIONS.join(" to ")}`,
  measure: (lab) => lab.within("slow-link", (directory) => measure(lab, directory)),
};

async function measure(lab: Lab, directory: string): Promise<Outcome> {
  const leftOut = (why: string): LeftOut => ({ what: slowLink.title, why });
  const absent = missing(["npm", "rsync", "curl"]);
  if (absent.length > 0) return { lines: [], leftOut: [leftOut(whyMissing(absent))] };
  if (lab.scale.name === "tiny") return { lines: [], leftOut: [leftOut("it downloads packages")] };
  let trees: string[];
  try {
    trees = await Promise.all(VERSIONS.map((version) => fetched(directory, version)));
  } catch (error) {
    const [reason] = (error instanceof Error ? error.message : String(error)).split("\n");
    return { lines: [], leftOut: [leftOut(`the npm registry did not give it: ${reason}`)] };
  }
  const [first, second] = trees;
  const volume = `${directory}/origin.vol`;
  await must(volcast("init", volume, "--size", "512MiB"));
  await must(volcast("publish", volume, first, "--as", "first"));
  await must(volcast("publish", volume, second, "--as", "second", "--checksum"));
  await using server = await Server.start([volume]);
  await using relay = new Proxy(Number(new URL(server.url).port));

  const other = await byRsync(directory, first, second);
  const line = (name: string, figure: number): Line => ({
    what: `increment of ${PACKAGE}, ${name}`,
    unit: "B",
    figure,
    against: RSYNC,
    other,
  });
  const site: Site = { volume: `${directory}/site.vol`, server, relay, second };
  const plain = await byPull(site, []);
  const zstd = await byCurl(relay, directory);
  const lines = [
    line("as it is", plain),
    line("by curl --header 'Accept-Encoding: zstd'", zstd),
  ];
  if (!(await must(volcast("pull", "--help"))).includes("--compress")) {
    const what = `increment of ${PACKAGE}, volcast pull --compress`;
    return { lines, leftOut: [{ what, why: "not built" }] };
  }
  const compressed = await byPull({ ...site, volume: `${directory}/other.vol` }, ["--compress"]);
  lines.push({ ...line("volcast pull --compress", compressed), target: cost(3) });
  return { lines };
}

/** The files of a version, in a directory of their own. */
async function fetched(directory: string, version: string): Promise<string> {
  const target = `${directory}/${version}`;
  await Deno.mkdir(target);
  await must(inside(target, [pathOf("npm")!, "pack", "--silent", `${PACKAGE}@${version}`]));
  const archive = [...Deno.readDirSync(target)].find(({ name }) => name.endsWith(".tgz"))!.name;
  await must(inside(target, ["tar", "-xzf", archive]));
  return `${target}/package`;
}

async function byRsync(directory: string, first: string, second: string): Promise<number> {
  await using daemon = await startRsyncDaemon(directory, { first, second });
  const target = `${directory}/rsync`;
  await rsyncPull(daemon, "first", target);
  await using relay = new Proxy(daemon.port);
  // Both releases have the times of the package, which tell nothing.
  await rsyncPull(relay, "second", target, ["-z", "--checksum"]);
  assertSame(digestOfDirectory(target), digestOfDirectory(second));
  return relay.sent + relay.received;
}

interface Site {
  readonly volume: string;
  readonly server: Server;
  readonly relay: Proxy;
  readonly second: string;
}

/** Bytes that a pull of the second release takes at a site that has the first. */
async function byPull(site: Site, options: readonly string[]): Promise<number> {
  const { volume, server, relay, second } = site;
  await setPointer(server.url, "master", "first");
  await pull(volume, server.url);
  await setPointer(server.url, "master", "second");
  const before = relay.sent + relay.received;
  const args = ["pull", volume, "--site", "site", "--parent", relay.url, "--json", ...options];
  const pulled: Pulled = JSON.parse(await must(volcast(...args)));
  assertPulled(pulled, { kind: "increment", name: "second" });
  const bytes = relay.sent + relay.received - before;
  assertSame(await digestOfVolume(volume), digestOfDirectory(second));
  return bytes;
}

/** What a pull would take if it asked for the compression that servers have today. */
async function byCurl(relay: Proxy, directory: string): Promise<number> {
  const before = relay.sent + relay.received;
  const url = `${relay.url}/replicate?since=first&to=second`;
  const out = `${directory}/increment.zst`;
  await must([pathOf("curl")!, "-sSf", "-H", "Accept-Encoding: zstd", "-o", out, url]);
  const magic = Deno.readFileSync(out).subarray(0, 4);
  if (magic.join() !== "40,181,47,253") throw new Error("the answer is not zstd");
  return relay.sent + relay.received - before;
}

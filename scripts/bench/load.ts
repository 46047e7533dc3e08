/**
 * Load on a server of files: wrk, for volcast and all peers alike.
 *
 * @module
 */

import { must } from "./process.ts";
import { pathOf } from "./programs.ts";
import { PAGE_FILE_BYTES } from "./trees.ts";

/** Connections that are kept alive. */
const CONNECTIONS = 16;

/** What a load showed. */
export interface LoadReport {
  readonly requestsPerSecond: number;
  readonly p99Ms: number;
  readonly requests: number;
  /** Answers that were not 2xx or 3xx, and connections that broke or timed out. */
  readonly failures: number;
  /** Headers included. */
  readonly bytes: number;
}

/** Asks for one page after the other, and says what came as JSON. */
const SCRIPT = `local next = 0
local pages = PAGES
request = function()
  next = (next + 7) % pages
  return wrk.format("GET", "PATH" .. "page" .. next .. ".html")
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nJSON{"requests":%d,"bytes":%d,"micros":%d,"p99":%d,"failures":%d}\\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(99),
    e.status + e.read + e.write + e.timeout + e.connect))
end
`;

/**
 * Asks a server for pages of the tree `pages`.
 *
 * @param url Where they lie, with a slash at the end.
 * @param options.scratch Directory for the script.
 * @throws {Error} when fewer bytes came than the pages have.
 */
export async function load(
  url: string,
  options: { pages: number; seconds: number; scratch: string },
): Promise<LoadReport> {
  const { origin, pathname } = new URL(url);
  const script = `${options.scratch}/load.lua`;
  const text = SCRIPT.replace("PAGES", String(options.pages)).replace("PATH", pathname);
  Deno.writeTextFileSync(script, text);
  const out = await must([
    pathOf("wrk")!,
    "--threads=1",
    `--connections=${CONNECTIONS}`,
    `--duration=${options.seconds}s`,
    `--script=${script}`,
    origin,
  ]);
  const found = /^JSON(.+)$/m.exec(out)?.[1];
  if (found === undefined) throw new Error(`Cannot read what wrk says: ${out}`);
  const { requests, bytes, micros, p99, failures } = JSON.parse(found);
  if (requests === 0) throw new Error(`${origin} answered nothing`);
  const least = (requests - failures) * PAGE_FILE_BYTES;
  if (bytes < least) throw new Error(`${origin} sent ${bytes} bytes, the pages have ${least}`);
  const requestsPerSecond = requests / (micros / 1e6);
  return { requestsPerSecond, p99Ms: p99 / 1000, requests, failures, bytes };
}

/**
 * Compares each page that a server has with the file that it should be.
 * @throws {Error} naming one that differs.
 */
export async function assertPages(url: string, directory: string, pages: number): Promise<void> {
  for (let i = 0; i < pages; i++) {
    const name = `page${i}.html`;
    const response = await fetch(url + name);
    const bytes = new Uint8Array(await response.arrayBuffer());
    const expected = Deno.readFileSync(`${directory}/${name}`);
    const isSame = response.ok && bytes.length === expected.length &&
      bytes.every((byte, at) => byte === expected[at]);
    if (!isSame) throw new Error(`${url}${name} is not as it should be (${response.status})`);
  }
}

/**
 * What strangers send to a server, and strangers who have a token: raw bytes over TCP. Each answer is a
 * well-formed one, never 500; the server goes on, and without a token nothing changes.
 *
 * @module
 */

import { startServer } from "../../../src/http/mod.ts";
import { Node } from "../../../src/replication/mod.ts";
import type { MemoryStore } from "../../../src/store/mod.ts";
import { fsck, Volume } from "../../../src/volume/mod.ts";
import type { Random } from "../../helpers/random.ts";
import { copyOf } from "../../helpers/stores.ts";
import { GuardStore } from "../guard_store.ts";
import { applySteps, byteStep } from "../mutate.ts";
import { makeScene, OPTIONS } from "../scene.ts";
import type { Input, Step, Target } from "../target.ts";
import type { Watch } from "../watch.ts";

const TOKEN = "secret";
const METHODS = ["GET", "GET", "GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "X"];
const VOLUME = "VOLUME";
const ID = "TOP";
const PATHS = [
  "/replicate",
  "/replicate?since=s3&to=s4",
  "/replicate?since=s2",
  "/replicate?since=master&site=paris&full=never",
  "/image?select=s4+-+s3",
  "/plan?select=active",
  "/plan?delete=s1,s3",
  `/images/${VOLUME}/full/${ID}`,
  `/images/${VOLUME}/full/${ID}?blocks=5,70-90`,
  `/images/${VOLUME}/${ID}/${ID}`,
  "/snapshots",
  "/snapshots/s3",
  "/pointers",
  "/pointers/stable",
  "/sites",
  "/sites/paris",
  "/sites/paris/plane",
  "/seals",
  "/seals/master",
  "/files/",
  "/files/wide/?limit=3&after=1",
  "/files/large?at=s3",
  "/files/sparse?at=active",
  "/files/d0/d1",
  "/files/link/d2",
  "/archive?at=s3&path=d0",
  "/tree",
  "/diff?from=s1&to=s4",
  "/import",
  "/publish?as=x",
  "/promote",
  "/standby",
  "/scrub",
  "/status",
  "/metrics",
  "/healthz",
  "/readyz",
  "/",
];
/** What is put into a path or a query, at a place of its own choice. */
const ODD = [
  "%",
  "%zz",
  "%00",
  "%ff",
  "%2e%2e%2f",
  "..",
  "//",
  "\\",
  "?",
  "#",
  "&since=",
  "&since=a&since=b",
  "=%F0%9F",
  "&blocks=0-4294967295",
  "&blocks=9-1,,7",
  "&limit=99999999999999999999",
  "&limit=-1",
  "&at=__proto__",
  "&site=__proto__",
  "&snapshots=all",
  "&snapshots=,",
  "\u00e9",
  "x".repeat(9000),
];
const HEADER_LINES = [
  "Range: bytes=0-",
  "Range: bytes=-1",
  "Range: bytes=5-2",
  "Range: bytes=99999999999999999999-",
  `Range: bytes=${Array.from({ length: 500 }, (_, i) => `${i}-${i}`).join(",")}`,
  "Range: lines=1",
  'If-Range: "x"',
  'If-None-Match: "\\"',
  "If-None-Match: *",
  "If-Modified-Since: never",
  "Accept-Encoding: zstd;q=9, gzip;q=-1, *",
  "Accept-Encoding: gzip",
  "Accept: application/json",
  "Authorization: Bearer wrong",
  "Authorization: Basic \u00ff",
  "Content-Range: bytes 0-1/2",
  "Content-Range: bytes 5-2/*",
  "Content-Type: application/json",
  "Expect: 100-continue",
  "volcast-epoch: 9.9.9",
  `X: ${"y".repeat(20_000)}`,
  "Host: \u0000",
  "Upgrade: websocket",
];
const BODIES = [
  "",
  "{",
  "[]",
  "null",
  '{"snapshot":"s3"}',
  '{"snapshot":"s3","needs":["1-00000000"]}',
  '{"name":"x","pointers":["y"]}',
  '{"name":"__proto__"}',
  '{"kind":"shadow"}',
  '{"__proto__":{"a":1},"snapshot":"s1"}',
  `${"[".repeat(5000)}`,
  "\u0000".repeat(1024),
  "z".repeat(70_000),
];
const DEEP = [
  `${"(".repeat(3000)}s1${")".repeat(3000)}`,
  Array.from({ length: 1200 }, () => "s1").join("+"),
  "s1 - (s3 - (s4",
  "s1 & & s3",
  "-s1",
  "s1 + active - s2 & s4",
  "((((",
];

/** See the module. */
export const requests: Target = {
  name: "requests",
  limits: { work: 100_000, arrayBytes: 65 * 2 ** 20, totalBytes: 2 * 2 ** 30 },
  async prepare() {
    const scene = await makeScene();
    return {
      make: makeInput,
      run: (input, watch) => run(scene, input, watch),
    };
  },
};

function makeInput(random: Random): Input {
  const steps: Step[] = [{ op: "node", replica: random.oneIn(4), admin: random.oneIn(3) }];
  for (let count = random.pick([1, 1, 2, 3]); count > 0; count--) steps.push(makeRequest(random));
  if (random.oneIn(4)) {
    for (let i = random.between(1, 3); i > 0; i--) {
      steps.push({ ...byteStep(random, random.pick([20, 200])), raw: true });
    }
  }
  return steps;
}

function makeRequest(random: Random): Step {
  let path = random.pick(PATHS);
  if (random.oneIn(5)) path = `/image?select=${encodeURIComponent(random.pick(DEEP))}`;
  if (random.oneIn(2)) {
    const at = random.oneIn(2) ? path.length : random.between(1, path.length);
    const odd = random.pick(ODD);
    const isQuery = odd.startsWith("&") && !path.includes("?");
    path = path.slice(0, at) + (isQuery ? `?${odd.slice(1)}` : odd) + path.slice(at);
  }
  const lines: string[] = [];
  for (let i = random.below(3); i > 0; i--) lines.push(random.pick(HEADER_LINES));
  const method = random.pick(METHODS);
  const hasBody = !["GET", "HEAD"].includes(method) || random.oneIn(10);
  return {
    op: "request",
    method,
    path,
    headers: lines.join("\r\n"),
    body: hasBody ? random.pick(BODIES) : "",
    chunked: random.oneIn(5),
  };
}

async function run(
  scene: { origin: MemoryStore; replica: MemoryStore },
  input: Input,
  watch: Watch,
): Promise<void> {
  const chosen = input.find(({ op }) => op === "node");
  const isAdmin = chosen?.admin === true;
  const store = copyOf(chosen?.replica === true ? scene.replica : scene.origin);
  const guard = new GuardStore(store, watch);
  const volume = Volume.open(guard, OPTIONS);
  if (!isAdmin) guard.inUse = () => "who asks has no token";
  const node = new Node({ name: "origin", path: "unused.vol", volume });
  const log: string[] = [];
  const server = startServer(node, {
    listen: { hostname: "127.0.0.1", port: 0 },
    tokens: { admin: TOKEN },
    version: "test",
    log: (text) => void log.push(text),
    graceMs: 5000,
  });
  try {
    const names = { volume: volume.volumeId, top: volume.current.id };
    for (const step of input) {
      if (step.op !== "request") continue;
      const bytes = bytesOf(step, isAdmin, names);
      const raw = input.filter((one) => one.raw === true);
      await send(server.url, applySteps(bytes, raw), {
        isWhole: raw.length === 0,
        isHead: step.method === "HEAD",
        watch,
      });
    }
    const alive = await fetch(`${server.url}/healthz`);
    if (alive.status !== 200) watch.problem(`Not alive after it: ${alive.status}`);
    await alive.body?.cancel();
  } finally {
    await server.stop();
    for (const text of log) {
      if (/^\s+at |Error:|Assertion/m.test(text)) {
        watch.problem(`The log has: ${text.slice(0, 600)}`);
      }
    }
    guard.inUse = () => undefined;
    if (volume.poisoned !== undefined) watch.problem(`Poisoned: ${volume.poisoned.message}`);
    await volume.close();
  }
  const again = Volume.open(store, OPTIONS);
  const { findings } = fsck(again);
  if (findings.length > 0) watch.problem(`Not clean after it: ${findings[0].problem}`);
  again.abandon();
}

function bytesOf(
  step: Step,
  isAdmin: boolean,
  { volume, top }: { volume: string; top: string },
): Uint8Array {
  const body = new TextEncoder().encode(String(step.body));
  const path = String(step.path).replace(VOLUME, volume).replaceAll(ID, top);
  const lines = [`${step.method} ${path} HTTP/1.1`, "Host: x", "Connection: close"];
  if (isAdmin) lines.push(`Authorization: Bearer ${TOKEN}`);
  if (step.headers !== "") lines.push(String(step.headers));
  if (step.chunked === true) lines.push("Transfer-Encoding: chunked");
  else if (body.length > 0) lines.push(`Content-Length: ${body.length}`);
  const head = new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`);
  const end = step.chunked === true
    ? [`${body.length.toString(16)}\r\n`, step.body, body.length > 0 ? "\r\n0\r\n\r\n" : "\r\n"]
    : [step.body];
  return new Uint8Array([...head, ...new TextEncoder().encode(end.join(""))]);
}

/** Longest wait for the rest of an answer to something that is no whole request, ms. Nothing depends on it. */
const BROKEN_MS = 30;
const MOST_BYTES = 2 ** 20;

async function send(
  url: string,
  bytes: Uint8Array,
  { isWhole, isHead, watch }: { isWhole: boolean; isHead: boolean; watch: Watch },
): Promise<void> {
  const { hostname, port } = new URL(url);
  const connection = await Deno.connect({ hostname, port: Number(port) });
  let closed = false;
  const close = () => {
    if (!closed) connection.close();
    closed = true;
  };
  // What is no whole request may be waited for by the server: it is cut off.
  const timer = isWhole ? undefined : setTimeout(close, BROKEN_MS);
  try {
    for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
    check(await read(connection), { isHead, isWhole }, watch);
  } catch (error) {
    // The server may end a connection that it makes nothing of, while it is being written to.
    if (!(error instanceof Deno.errors.ConnectionReset) && !isCut(error)) throw error;
  } finally {
    clearTimeout(timer);
    close();
  }
}

function isCut(error: unknown): boolean {
  return error instanceof Deno.errors.BrokenPipe || error instanceof Deno.errors.BadResource ||
    error instanceof Deno.errors.Interrupted || error instanceof Deno.errors.ConnectionAborted;
}

async function read(connection: Deno.Conn): Promise<string> {
  const buffer = new Uint8Array(65_536);
  const decoder = new TextDecoder("latin1");
  let text = "";
  while (text.length < MOST_BYTES) {
    const count = await connection.read(buffer);
    if (count === null) break;
    text += decoder.decode(buffer.subarray(0, count));
    // Events go on for ever.
    if (/^content-type: text\/event-stream/im.test(text.slice(0, 2000))) break;
  }
  return text;
}

function check(
  answer: string,
  { isHead, isWhole }: { isHead: boolean; isWhole: boolean },
  watch: Watch,
): void {
  if (answer === "") return;
  const [, status] = /^HTTP\/1\.[01] (\d{3}) /.exec(answer) ?? [];
  if (status === undefined) {
    return watch.problem(`No answer: ${JSON.stringify(answer.slice(0, 80))}`);
  }
  const outcome = `status ${status}`;
  watch.outcomes.set(outcome, (watch.outcomes.get(outcome) ?? 0) + 1);
  const code = Number(status);
  const split = answer.indexOf("\r\n\r\n");
  const [head, body] = [answer.slice(0, split), answer.slice(split + 4)];
  if (code >= 500 && code !== 503 && code !== 507) {
    watch.problem(`Answered: ${answer.slice(0, 600)}`);
  }
  // What ranges there are is in a header.
  if (code < 400 || code === 416) return;
  const isProblem = /^content-type: application\/problem\+json/im.test(head);
  // What is no HTTP is refused below the routes.
  const isBelow = body === "" && !/^volcast-/im.test(head);
  if (!isProblem && !isBelow && isWhole) watch.problem(`No problem: ${answer.slice(0, 600)}`);
  if (isProblem && !isHead && !/"title":/.test(body)) {
    watch.problem(`No title: ${answer.slice(0, 600)}`);
  }
}

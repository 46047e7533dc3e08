/**
 * What a parent answers that nobody vouches for: bytes over TCP, from the status line to the last block.
 *
 * @module
 */

import { PATIENCE, type Patience } from "../../../src/core/mod.ts";
import { Access, createApp, HttpPeer, Traffic } from "../../../src/http/mod.ts";
import { Node, Puller } from "../../../src/replication/mod.ts";
import type { MemoryStore } from "../../../src/store/mod.ts";
import { fsck, Volume } from "../../../src/volume/mod.ts";
import type { Random } from "../../helpers/random.ts";
import { copyOf } from "../../helpers/stores.ts";
import { GuardStore } from "../guard_store.ts";
import { applySteps, byteStep, joined } from "../mutate.ts";
import { makeScene, OPTIONS } from "../scene.ts";
import type { Input, Step, Target } from "../target.ts";
import type { Watch } from "../watch.ts";

/** What a hostile parent answers is the same the next time. */
const HASTE: Patience = { ...PATIENCE, attempts: 2, firstMs: 0, pause: () => Promise.resolve() };

const ROUTES = ["/replicate", "/images", "/sites", "/snapshots", "/status", "/events"];
const HEADERS = [
  "volcast-volume",
  "volcast-capacity",
  "volcast-top",
  "volcast-top-name",
  "volcast-base",
  "volcast-snapshots",
  "volcast-blocks",
  "volcast-chain",
  "volcast-wants-plane",
  "volcast-seal",
  "volcast-epoch",
  "content-length",
  "content-range",
  "content-type",
  "content-encoding",
  "transfer-encoding",
  "location",
  "retry-after",
  "volcast-problem",
  "volcast-problem-title",
  "volcast-problem-hint",
];
const VALUES = [
  "",
  "0",
  "-1",
  "1e9",
  "9007199254740993",
  "99999999999999999999999",
  "NaN",
  "%",
  "%E0%A4",
  "..",
  "4-00000000",
  "99999999-ffffffff",
  "__proto__",
  "full",
  "origin,origin,%",
  "gzip",
  "chunked",
  "bytes 0-0/1",
  "bytes 99-1/*",
  "/replicate",
  "x".repeat(3000),
];
const STATUSES = [
  100,
  101,
  200,
  204,
  206,
  301,
  304,
  400,
  403,
  404,
  409,
  410,
  416,
  500,
  502,
  503,
  999,
];
const BODIES = [
  "",
  "{",
  "null",
  "[]",
  '{"snapshots":[{"id":"1-00000000"}]}',
  '{"snapshots":{"__proto__":1}}',
  '{"volume":{"id":"x"}}',
  '{"kind":"full","title":"full"}',
  '{"kind":"constructor","title":"x"}',
  '{"kind":"unknown-base","title":"\\u0000","hint":"\\u001b[2J"}',
  `${"[".repeat(20_000)}`,
  "event: ",
  "event: master\n\n".repeat(50),
];

/** See the module. */
export const parents: Target = {
  name: "parents",
  limits: { work: 100_000, arrayBytes: 65 * 2 ** 20, totalBytes: 2 * 2 ** 30 },
  async prepare() {
    const scene = await makeScene();
    return { make: makeInput, run: (input, watch) => run(scene, input, watch) };
  },
};

function makeInput(random: Random): Input {
  const steps: Step[] = [];
  for (let count = random.pick([1, 1, 2, 3]); count > 0; count--) {
    const route = random.pick([...ROUTES.slice(0, 2), ...ROUTES]);
    switch (random.below(5)) {
      case 0:
      case 1:
        steps.push({
          op: "header",
          route,
          name: random.pick(HEADERS),
          value: random.pick(VALUES),
        });
        break;
      case 2:
        steps.push({ op: "status", route, status: random.pick(STATUSES) });
        break;
      case 3:
        steps.push({ op: "body", route, text: random.pick(BODIES) });
        break;
      default:
        steps.push({ ...byteStep(random, random.pick([100, 1500, 100_000])), route, raw: true });
    }
  }
  return steps;
}

async function run(
  scene: { origin: MemoryStore; replica: MemoryStore },
  input: Input,
  watch: Watch,
): Promise<void> {
  await using parent = startParent(scene.origin, input);
  const store = copyOf(scene.replica);
  const guard = new GuardStore(store, watch);
  const volume = Volume.open(guard, OPTIONS);
  const before = volume.current.id;
  const node = new Node({ name: "paris", path: "unused.vol", volume });
  const peer = new HttpPeer(parent.url, { patience: HASTE });
  const puller = new Puller(node, { parents: [peer], patience: HASTE, drainMs: 0 });
  // Whatever a parent says of itself may be told to the user as it is.
  const allowed = ["io", "denied"] as const;
  const pulled = await watch.attempt("pull", () => puller.pull(), allowed);
  if (pulled === undefined && volume.current.id !== before) watch.problem("Refused, and moved");
  await watch.attempt("snapshots", () => peer.snapshots(), allowed);
  await watch.attempt("events", async () => {
    const ending = new AbortController();
    for await (const { type } of peer.events(ending.signal)) watch.spend(1, `an event ${type}`);
  }, allowed);
  if (volume.poisoned !== undefined) watch.problem(`Poisoned: ${volume.poisoned.message}`);
  if (!fsck(volume).clean) watch.problem("Not clean after it");
  await volume.close();
}

/** A parent that answers each request as it should, with changes. */
function startParent(origin: MemoryStore, input: Input): AsyncDisposable & { url: string } {
  const volume = Volume.open(copyOf(origin), OPTIONS);
  const node = new Node({ name: "origin", path: "unused.vol", volume });
  const app = createApp(node, {
    access: new Access({ tokens: {}, loopback: true }),
    traffic: new Traffic(),
    version: "test",
    onShutdown: () => () => {},
  }, () => {});
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const busy = new Set<Promise<void>>();
  const accepting = (async () => {
    for await (const connection of listener) {
      const work = answer(connection, input, (request) => app.fetch(request)).catch(() => {})
        .finally(() => busy.delete(work));
      busy.add(work);
    }
  })();
  return {
    url: `http://127.0.0.1:${listener.addr.port}`,
    async [Symbol.asyncDispose](): Promise<void> {
      listener.close();
      await accepting.catch(() => {});
      await Promise.all(busy);
      await volume.close();
    },
  };
}

async function answer(
  connection: Deno.Conn,
  input: Input,
  handle: (request: Request) => Response | Promise<Response>,
): Promise<void> {
  try {
    const head = await readHead(connection);
    const [method, path] = head.split(" ");
    const steps = input.filter(({ route }) => path.startsWith(String(route)));
    // Of a request's body nothing is read: what it should have said is said here.
    const body = method === "PUT" ? '{"snapshot":"SNAPSHOT","needs":[]}' : undefined;
    const request = new Request(`http://x${path}`, {
      method,
      ...(body === undefined ? {} : { body }),
    });
    const response = path === "/events"
      ? new Response("event: master\ndata: {}\n\n")
      : await handle(request);
    await connection.write(new Uint8Array(0));
    const bytes = await changed(response, method === "HEAD", steps);
    for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
  } finally {
    connection.close();
  }
}

async function changed(
  response: Response,
  isHead: boolean,
  steps: Input,
): Promise<Uint8Array<ArrayBuffer>> {
  let status = response.status;
  const headers = new Map([...response.headers]);
  let body: Uint8Array = new Uint8Array(await response.arrayBuffer());
  if (!headers.has("content-length")) headers.set("content-length", String(body.length));
  for (const step of steps) {
    if (step.op === "header") headers.set(String(step.name), String(step.value));
    else if (step.op === "status") status = Number(step.status);
    else if (step.op === "body") {
      body = new TextEncoder().encode(String(step.text));
      headers.set("content-length", String(body.length));
    }
  }
  headers.set("connection", "close");
  const lines = [...headers].map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const head = new TextEncoder().encode(`HTTP/1.1 ${status} X\r\n${lines}\r\n`);
  const whole = isHead ? head : joined(head, body);
  return applySteps(whole, steps.filter(({ raw }) => raw === true));
}

async function readHead(connection: Deno.Conn): Promise<string> {
  const buffer = new Uint8Array(8192);
  let text = "";
  while (!text.includes("\r\n\r\n")) {
    const count = await connection.read(buffer);
    if (count === null) break;
    text += new TextDecoder("latin1").decode(buffer.subarray(0, count));
  }
  return text;
}

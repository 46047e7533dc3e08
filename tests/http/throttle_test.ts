import { assert, assertEquals } from "@std/assert";
import { Throttle, throttled } from "../../src/http/mod.ts";
import { VirtualClock } from "../helpers/virtual_clock.ts";

/** A stream of so many bytes, each its place; in chunks of a size. */
function source(byteCount: number, chunkBytes: number): ReadableStream<Uint8Array<ArrayBuffer>> {
  let at = 0;
  return new ReadableStream({
    pull(controller): void {
      if (at === byteCount) return controller.close();
      const chunk = new Uint8Array(Math.min(chunkBytes, byteCount - at));
      for (let i = 0; i < chunk.length; i++) chunk[i] = (at + i) % 251;
      at += chunk.length;
      controller.enqueue(chunk);
    },
  }, { highWaterMark: 0 });
}

/** Reads a stream, and counts. */
function reading(
  stream: ReadableStream<Uint8Array>,
): { count: number; done: boolean; bad: boolean } {
  const state = { count: 0, done: false, bad: false };
  void (async () => {
    for await (const chunk of stream) {
      for (let i = 0; i < chunk.length; i++) state.bad ||= chunk[i] !== (state.count + i) % 251;
      state.count += chunk.length;
    }
    state.done = true;
  })();
  return state;
}

const MIB = 2 ** 20;

Deno.test("a throttle lets just its rate pass, whatever the size of chunks", async () => {
  for (const chunkBytes of [700, 65_536, MIB]) {
    const clock = new VirtualClock();
    const throttle = new Throttle(MIB, clock);
    const state = reading(throttled(source(4 * MIB, chunkBytes), throttle));
    for (let s = 1; s <= 3; s++) {
      await clock.run(s * 1000);
      const most = s * MIB + MIB * 0.05 + throttle.pieceBytes;
      assert(state.count <= most && state.count >= s * MIB - throttle.pieceBytes, `${state.count}`);
    }
    await clock.run(5000);
    assertEquals(state, { count: 4 * MIB, done: true, bad: false });
  }
});

Deno.test("streams share a throttle equally, and those that remain take it all", async () => {
  const clock = new VirtualClock();
  const throttle = new Throttle(MIB, clock);
  const sizes = [700, 10_000, 65_536, MIB];
  const states = sizes.map((size) => reading(throttled(source(MIB, size), throttle)));
  await clock.run(2000);
  const counts = states.map(({ count }) => count);
  const total = counts.reduce((a, b) => a + b);
  assert(total <= 2 * MIB + MIB * 0.05 + sizes.length * throttle.pieceBytes);
  for (const count of counts) assert(Math.abs(count - counts[0]) <= throttle.pieceBytes);
  await clock.run(4100);
  assert(states.every(({ done, bad }) => done && !bad));
});

Deno.test("timers that are late cost no bandwidth beyond the burst, and give none", async () => {
  const clock = new VirtualClock();
  clock.lateMs = 30;
  const throttle = new Throttle(MIB, clock);
  const state = reading(throttled(source(8 * MIB, MIB), throttle));
  await clock.run(4000);
  assert(state.count >= 3.9 * MIB && state.count <= 4.06 * MIB, `${state.count / MIB} MiB`);
});

Deno.test("a pause is not made up for", async () => {
  const clock = new VirtualClock();
  const throttle = new Throttle(MIB, clock);
  await throttle.take(1000);
  clock.now = 60_000;
  const state = reading(throttled(source(4 * MIB, MIB), throttle));
  await clock.run(61_000);
  assert(state.count <= MIB + MIB * 0.05 + throttle.pieceBytes, `${state.count}`);
});

Deno.test("a throttled stream that nobody reads any more lets its source go, and waits for nothing", async () => {
  const clock = new VirtualClock();
  const throttle = new Throttle(4096, clock);
  let cancelled: unknown;
  const stream = throttled(
    new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull: (controller) => controller.enqueue(new Uint8Array(65_536)),
      cancel: (reason) => void (cancelled = reason),
    }, { highWaterMark: 0 }),
    throttle,
  );
  const reader = stream.getReader();
  await reader.read();
  const pending = reader.read();
  await clock.run(10);
  assertEquals(clock.waiting, 1);
  await reader.cancel("enough");
  assertEquals([cancelled, clock.waiting, (await pending).done], ["enough", 0, true]);
});

Deno.test("without a throttle a stream is what it was", () => {
  const stream = source(10, 10);
  assert(throttled(stream, undefined) === stream);
});

import { assert, assertEquals } from "@std/assert";
import { type Finding, inspectMedium, type Medium } from "../../src/image/mod.ts";
import { scattered } from "../helpers/history.ts";
import { flipped, joined, mediumOf, segmentsOf } from "../helpers/pieces.ts";
import { Random } from "../helpers/random.ts";
import { imageOf } from "../helpers/replicas.ts";
import { bytesOf, streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

async function found(medium: Medium, options: { check?: boolean } = {}): Promise<Finding[]> {
  return await Array.fromAsync(inspectMedium(medium, options));
}

function pipe(bytes: Uint8Array): Medium {
  return {
    name: "-",
    byteCount: Infinity,
    isSequential: true,
    stream: () => streamOf(bytes, 7777),
  };
}

/** What was found, in short: numbers of segments; `!` for what has a problem, `?` without a header. */
function short(findings: readonly Finding[]): string {
  return findings.map(({ segment, problem }) =>
    `${segment?.number ?? "?"}${problem === undefined ? "" : "!"}`
  ).join(" ");
}

test("segments and images are told as they lie, from files and pipes", async () => {
  const history = await scattered(60);
  const image = imageOf(history.volume, "s2", "s1");
  const segments = await segmentsOf(image, { segmentBytes: 50_000, recordBytes: 4096 });
  const bytes = await bytesOf(image);
  const all = joined(segments);
  const medium = mediumOf("all", all);
  const findings = await found(medium);
  const whole = segments.map((_, i) => `${i + 1}`).join(" ");
  assertEquals(short(findings), whole);
  assert(medium.count < all.length, "payloads are passed over");
  assert(findings.every(({ isChecked }) => !isChecked));
  for (const medium of [mediumOf("all", all), pipe(all)]) {
    const checked = await found(medium, { check: true });
    assertEquals(short(checked), whole);
    assert(checked.every(({ isChecked }) => isChecked));
    assertEquals(checked.map(({ span }) => span), findings.map(({ span }) => span));
    assertEquals(checked.at(-1)!.span.end, bytes.length);
  }
  // What fills up the last record is nothing.
  assertEquals(short(await found(pipe(joined([all, new Uint8Array(9000)])))), whole);
  for (const medium of [mediumOf("plain", bytes), pipe(bytes)]) {
    const [plain, ...none] = await found(medium);
    assertEquals([plain.span, plain.header!.top.name, none.length], [
      { start: 0, end: bytes.length },
      "s2",
      0,
    ]);
    assertEquals(plain.problem, undefined);
  }
  const cut = bytes.subarray(0, 9000);
  for (const medium of [mediumOf("cut", cut), pipe(cut)]) {
    const [{ problem, span }] = await found(medium);
    assertEquals([problem, span.end], [`cut off: 9000 of ${bytes.length} bytes are there`, 9000]);
  }
  await history.close();
});

test("of damaged media is told all that can be read", async () => {
  const history = await scattered(61);
  const image = imageOf(history.volume, "s2");
  const segments = await segmentsOf(image, { segmentBytes: 80_000, recordBytes: 1024 });
  assert(segments.length >= 4);
  const last = segments.length;
  const rest = (first: number) => segments.slice(first - 1).map((_, i) => ` ${first + i}`).join("");
  const replaced = (at: number, bytes: Uint8Array) =>
    joined(segments.map((one, i) => i === at ? bytes : one));

  // A header that is damaged: what it says of itself, and what follows it.
  const header = replaced(1, flipped(segments[1], 40 * 8));
  for (const medium of [mediumOf("header", header), pipe(header)]) {
    const findings = await found(medium);
    assertEquals(short(findings), `1 ?!${rest(3)}`);
    assertEquals(findings[1].says, `segment 2 of ${last}`);
    assertEquals(findings[1].header!.top.name, "s2");
    assertEquals(findings[1].at, segments[0].length);
  }
  // Its first bytes are gone: nothing is known of it.
  const magic = replaced(1, joined([new Uint8Array(600).fill(7), segments[1].subarray(600)]));
  assertEquals(short(await found(mediumOf("magic", magic))), `1 ?!${rest(3)}`);
  const first = joined([new Uint8Array(512).fill(1), ...segments]);
  assertEquals(short(await found(mediumOf("first", first))), `?! 1${rest(2)}`);

  // A payload: only a check tells.
  const payload = replaced(1, flipped(segments[1], 9000 * 8));
  assertEquals(short(await found(mediumOf("payload", payload))), `1 2${rest(3)}`);
  for (const medium of [mediumOf("payload", payload), pipe(payload)]) {
    const findings = await found(medium, { check: true });
    assertEquals(short(findings), `1 2!${rest(3)}`);
    assert(findings[1].problem!.includes("digest"), findings[1].problem);
  }
  // Records lost within a segment: the next is found all the same.
  const lost = replaced(1, joined([segments[1].subarray(0, 20_480), segments[1].subarray(24_576)]));
  assertEquals(short(await found(mediumOf("lost", lost))), `1 2!${rest(3)}`);
  // Cut off.
  const cut = joined(segments).subarray(0, segments[0].length + 10_000);
  for (const medium of [mediumOf("cut", cut), pipe(cut)]) {
    const findings = await found(medium);
    assertEquals(short(findings), "1 2!");
    assert(findings[1].problem!.startsWith("cut off: 5904 of "), findings[1].problem);
    assertEquals(findings[1].span.end - findings[1].span.start, 5904);
  }
  await history.close();
});

test("media with nothing on them, or noise, are told as such", async () => {
  for (const medium of [mediumOf("empty", new Uint8Array(0)), pipe(new Uint8Array(0))]) {
    assertEquals((await found(medium)).map(({ problem }) => problem), ["It is empty"]);
  }
  for (const length of [1, 100, 5000, 3_000_000]) {
    const noise = new Random(length).bytes(length);
    for (const medium of [mediumOf("noise", noise), pipe(noise)]) {
      assertEquals(short(await found(medium)), "?!");
    }
  }
  const failing: Medium = {
    name: "gone",
    byteCount: 100_000,
    stream: () =>
      new ReadableStream({
        pull() {
          throw new Error("the tape is torn");
        },
      }),
  };
  assertEquals((await found(failing)).map(({ problem }) => problem), ["the tape is torn"]);
});

test("segments of other images in a payload are not taken for what lies on the medium", async () => {
  const history = await scattered(62);
  const inner = await segmentsOf(imageOf(history.volume, "s1"), { recordBytes: 512 });
  const [outer] = await segmentsOf(imageOf(history.volume, "s2"), { recordBytes: 512 });
  const forged = outer.slice();
  forged.set(inner[0].subarray(0, 20_000), 8192);
  assertEquals(short(await found(mediumOf("nested", forged), { check: true })), "1!");
  await history.close();
});

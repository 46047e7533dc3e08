/**
 * Seals: what an origin signs is what lies there, and a site that asks for seals takes nothing else.
 */

import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { PlaneSum, VolcastError } from "../../src/core/mod.ts";
import {
  decodeSeal,
  decodeStreamHeader,
  encodeStreamHeader,
  type Seal,
  SEAL_LAYOUT,
  STREAM_HEADER_LAYOUT,
} from "../../src/format/mod.ts";
import { applyImage, Image, sumOf, sumOfStream } from "../../src/image/mod.ts";
import {
  believing,
  generateKeys,
  knownSum,
  readPublicKeys,
  readSigningKey,
  sealFor,
  sealPointers,
  type SigningKey,
  Trust,
} from "../../src/replication/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { type Snapshot, Volume } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { sameChecksum } from "../helpers/forge_checksum.ts";
import { assertClean, History } from "../helpers/history.ts";
import { parseImage } from "../helpers/parse_image.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { advance, bitsOf, blockAt, imageOf, reachedFrom, replicaOf } from "../helpers/replicas.ts";
import { bytesOf, sourceOf, sourceOfImage } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

const HOUR_MS = 3_600_000;
const HOUR_NS = 3_600_000_000_000n;
const START = 1_800_000_000_000_000_000n;

function keyPair(): { key: SigningKey; keys: Uint8Array[] } {
  const { privateText, publicText } = generateKeys();
  return {
    key: readSigningKey(privateText, "a file"),
    keys: readPublicKeys(`# the origin\n${publicText}`, "a file"),
  };
}

/** By the book: every block that the root reaches. */
function bruteSum(history: History, snapshot: Snapshot): PlaneSum {
  const sum = new PlaneSum();
  for (const vbn of reachedFrom(history.volume, snapshot)) {
    sum.add(vbn, blockAt(history.store, vbn));
  }
  return sum;
}

async function nextRelease(history: History, keep = 3): Promise<Snapshot> {
  await history.change(8);
  await history.churn(1, 60_000);
  const kept = await history.snapshot({ pointers: ["master"] });
  if (kept === undefined) throw new Error("there is no room");
  while (history.kept.length > keep) await history.deleteSnapshot(history.kept[0]);
  return history.volume.resolve(kept.id);
}

/** A sealed release, and what a site is offered. */
async function sealed(
  history: History,
  key: SigningKey,
  now: bigint,
): Promise<{ bytes: Uint8Array; seal: Seal; top: Snapshot }> {
  const top = history.volume.resolve("master");
  await sealPointers(history.volume, { key, lifetimeMs: HOUR_MS, now: () => now });
  const bytes = sealFor(history.volume, top.id, "master")!;
  return { bytes, seal: decodeSeal(bytes), top };
}

function offer(volume: Volume, top: Snapshot, seal: Uint8Array | undefined) {
  return { volumeId: volume.volumeId, top: top.id, seal, from: "a parent" };
}

test("the sum of a snapshot is that of all its blocks, from whichever other one it follows", () =>
  forSeeds(seeds(1, 5), async (random) => {
    const history = await History.begin(new MemoryStore(1400), random, { writeBytes: 20_000 });
    await history.change(40);
    for (let i = 0; i < 6; i++) await nextRelease(history);
    const { volume } = history;
    const snapshots = history.kept.map(({ id }) => volume.resolve(id));
    for (const top of snapshots) {
      const brute = bruteSum(history, top).bytes;
      assertEquals((await sumOf(volume, top)).bytes, brute);
      for (const snapshot of snapshots) {
        const known = { snapshot, sum: bruteSum(history, snapshot) };
        assertEquals((await sumOf(volume, top, known)).bytes, brute);
      }
      const image = imageOf(volume, top.id);
      assertEquals((await sumOfStream(image.stream(), () => {})).bytes, brute);
    }
    const [base, , top] = snapshots;
    const increment = imageOf(volume, top.id, base.id);
    const site = await replicaOf(volume, base.id);
    const sum = await sumOfStream(increment.stream(), () => {}, site.volume);
    assertEquals(sum.bytes, bruteSum(history, top).bytes);
    await assertRejects(() => sumOfStream(increment.stream(), () => {}), VolcastError, "not given");
    site.volume.abandon();
    await history.close();
  }));

test("a site that asks for seals follows an origin that seals, also on shadows", async () => {
  let overlaps = 0;
  await forSeeds(seeds(20, 2), async (random) => {
    const history = await History.begin(new MemoryStore(800), random, { writeBytes: 20_000 });
    await history.change(40);
    await nextRelease(history);
    const { key, keys } = keyPair();
    let now = START;
    const trust = new Trust({ keys, now: () => now });
    const store = new MemoryStore(800);
    const site = Volume.incoming(store, history.volume.volumeId);
    for (let round = 0; round < 8; round++) {
      const { bytes, seal, top } = await sealed(history, key, now);
      const before = site.hasRoot ? site.current.id : undefined;
      assertEquals(trust.check(offer(site, top, bytes), site).sequence, round + 1);
      const base = before === undefined ? undefined : history.volume.resolveBase(before);
      const image = new Image(history.volume, top, base);
      if (site.hasRoot) {
        // Blocks that come where the site has others: they count as gone, and as come.
        const { blocks } = parseImage(await bytesOf(image));
        const here = bitsOf(site, site.current);
        overlaps += [...blocks.keys()].filter((vbn) => here.has(vbn)).length;
      }
      const options = { drainMs: 0, ...believing(trust, bytes, seal) };
      await applyImage(site, sourceOfImage(image), options);
      assertClean(site);
      assertEquals(site.current.id, top.id);
      assertEquals(knownSum(site.local, top.id)!.bytes, bruteSum(history, top).bytes);
      assertEquals(trust.whyStale(site), undefined);
      await nextRelease(history, 9);
      if (round % 2 === 0) {
        // What the site stands on becomes a shadow, and its blocks are used again.
        await history.volume.exclusive((writer) => writer.shadowSnapshot(top.id));
        history.kept = history.kept.filter(({ id }) => id !== top.id);
        await history.churn(8, 500_000);
        for (let i = 0; i < 3; i++) await nextRelease(history, 2);
      }
      now += HOUR_NS / 4n;
    }
    now += 2n * HOUR_NS;
    assert(trust.whyStale(site)?.includes("expired"));
    site.abandon();
    await history.close();
  });
  assert(overlaps > 20, `${overlaps} blocks came over others`);
});

/** An origin with a release, a site on it, and the next release, sealed. */
async function scene(seed: number) {
  const history = await History.begin(new MemoryStore(1400), new Random(seed), {
    writeBytes: 20_000,
  });
  await history.change(40);
  await nextRelease(history);
  const { key, keys } = keyPair();
  const first = await sealed(history, key, START);
  const trust = new Trust({ keys, now: () => START });
  const store = new MemoryStore(1400);
  const site = Volume.incoming(store, history.volume.volumeId);
  await applyImage(site, sourceOfImage(imageOf(history.volume, first.top.id)), {
    ...believing(trust, first.bytes, first.seal),
  });
  await nextRelease(history);
  const next = await sealed(history, key, START);
  return { history, key, keys, first, next, trust, store, site };
}

test("what nobody trusted has sealed is refused, by what is wrong with it", async () => {
  const { history, key, keys, first, next, trust, site } = await scene(40);
  const refuses = (reason: RegExp, seal: Uint8Array | undefined, by = trust, top = next.top) => {
    const error = assertThrows(() => by.check(offer(site, top, seal), site), VolcastError);
    assertEquals(error.kind, "untrusted", error.message);
    assert(reason.test(error.message), error.message);
  };
  assertEquals(trust.check(offer(site, next.top, next.bytes), site).sequence, 2);
  refuses(/has no seal/, undefined);
  refuses(/its seal is of/, first.bytes);
  refuses(/which is not trusted/, next.bytes, new Trust({ keys: keyPair().keys }));
  refuses(
    /for the pointer 'master'/,
    next.bytes,
    new Trust({ keys, pointer: "stable", now: () => START }),
  );
  refuses(/expired at/, next.bytes, new Trust({ keys, now: () => START + HOUR_NS }));
  refuses(/was made at/, next.bytes, new Trust({ keys, now: () => START - HOUR_NS }));
  // Every bit counts.
  for (let at = 8; at < SEAL_LAYOUT.size; at++) {
    const wrong = next.bytes.slice();
    wrong[at] ^= 1 << (at % 8);
    assertThrows(() => trust.check(offer(site, next.top, wrong), site), VolcastError);
  }
  // The release before, once the newer one was accepted.
  await applyImage(site, sourceOfImage(imageOf(history.volume, next.top.id, first.top.id)), {
    drainMs: 0,
    ...believing(trust, next.bytes, next.seal),
  });
  refuses(/number 1, number 2 was seen/, first.bytes, trust, first.top);
  // Unless the origin says so again.
  await history.volume.exclusive((writer) => writer.setPointer("master", first.top.id));
  const again = await sealed(history, key, START);
  assertEquals(trust.check(offer(site, first.top, again.bytes), site).sequence, 3);
  site.abandon();
  await history.close();
});

test("a block that was changed at a parent, its checksum the same, is refused before the flip", async () => {
  const { history, first, next, trust, store, site } = await scene(50);
  const image = imageOf(history.volume, next.top.id, first.top.id);
  // The parent is a copy of the origin on whose disk somebody has changed blocks.
  const parent = await replicaOf(history.volume, first.top.id);
  await advance(parent.volume, history.volume, next.top.id);
  const old = reachedFrom(history.volume, first.top);
  let changed = 0;
  const before = describe(site.fileSystem(site.current), { all: true });
  let refused = 0;
  for (const vbn of reachedFrom(history.volume, next.top)) {
    if (old.has(vbn)) continue;
    const block = blockAt(parent.store, vbn);
    parent.store.blocks.set(vbn, sameChecksum(block, new TextEncoder().encode("forged"), 2000));
    changed++;
    let bytes: Uint8Array | undefined;
    try {
      const reopened = Volume.open(parent.store);
      bytes = await bytesOf(imageOf(reopened, next.top.id, first.top.id));
      reopened.abandon();
    } catch (error) {
      // It was metadata, and means nothing any more: the parent itself says so.
      assert(error instanceof VolcastError, String(error));
    }
    if (bytes !== undefined) {
      const error = await assertRejects(
        () =>
          applyImage(site, sourceOf(bytes), {
            drainMs: 0,
            // A line does not garble all of an image: nothing of it is kept then either.
            isOverLine: changed % 2 === 0,
            ...believing(trust, next.bytes, next.seal),
          }),
        VolcastError,
      );
      assert(["untrusted", "damaged"].includes(error.kind), error.message);
      if (error.kind === "untrusted") refused++;
      assertEquals(describe(site.fileSystem(site.current), { all: true }), before);
      assertEquals(site.local.transfer, undefined);
    }
    parent.store.blocks.set(vbn, block);
  }
  assert(refused >= 5, `${refused} of ${changed} were content`);
  // The honest one is taken then.
  await applyImage(site, sourceOfImage(image), {
    drainMs: 0,
    ...believing(trust, next.bytes, next.seal),
  });
  assertClean(site);
  assertEquals(Volume.open(store).current.id, next.top.id);
  // Without seals nobody could have told: that is what they are for.
  parent.volume.abandon();
  site.abandon();
  await history.close();
});

test("an image under another name, time or root than was sealed is refused by its header", async () => {
  const { history, first, next, trust, site } = await scene(55);
  const bytes = await bytesOf(imageOf(history.volume, next.top.id, first.top.id));
  const header = decodeStreamHeader(bytes.subarray(0, STREAM_HEADER_LAYOUT.size));
  const { root } = header.top;
  const lies = [{ name: "other" }, { time: START + 1n }, { root: { ...root, vbn: root.vbn + 1 } }];
  for (const lie of lies) {
    const told = encodeStreamHeader({ ...header, top: { ...header.top, ...lie } });
    const lying = new Uint8Array([...told, ...bytes.subarray(told.length)]);
    const believe = { drainMs: 0, ...believing(trust, next.bytes, next.seal) };
    const error = await assertRejects(
      () => applyImage(site, sourceOf(lying), believe),
      VolcastError,
    );
    assertEquals(error.kind, "untrusted");
    assertStringIncludes(error.message, "it says that it is");
    assertEquals(site.current.id, first.top.id);
  }
  site.abandon();
  await history.close();
});

test("an origin seals what changed, renews in time, and numbers never come twice", async () => {
  const history = await History.begin(new MemoryStore(1400), new Random(60));
  await history.change(30);
  await nextRelease(history);
  const { key } = keyPair();
  const seal = (now: bigint) =>
    sealPointers(history.volume, { key, lifetimeMs: HOUR_MS, now: () => now });
  assertEquals((await seal(START)).map(({ sequence }) => sequence), [1]);
  assertEquals(await seal(START + HOUR_NS / 3n), []);
  assertEquals((await seal(START + HOUR_NS * 2n / 3n)).map(({ sequence }) => sequence), [2]);
  await history.volume.exclusive((writer) =>
    writer.setPointer("stable", history.volume.resolve("master").id)
  );
  assertEquals((await seal(START + HOUR_NS * 2n / 3n)).map(({ pointer }) => pointer), ["stable"]);
  await history.reopen();
  await nextRelease(history);
  assertEquals((await seal(START + HOUR_NS)).map(({ sequence }) => sequence), [4]);
  // With another key everything is sealed anew.
  const other = await sealPointers(history.volume, {
    key: keyPair().key,
    lifetimeMs: HOUR_MS,
    now: () => START + HOUR_NS,
  });
  assertEquals(other.map(({ pointer }) => pointer).sort(), ["master", "stable"]);
  // A block that rotted is not sealed.
  const top = await nextRelease(history);
  const [vbn] = [...reachedFrom(history.volume, top)].slice(-1);
  history.store.blocks.set(vbn, new Uint8Array(4096).fill(9));
  await assertRejects(() => seal(START + HOUR_NS), VolcastError);
  history.volume.abandon();
});

test("keys are what keygen writes, or refused by line", () => {
  const { privateText, publicText } = generateKeys();
  assertEquals(readPublicKeys(`\n# two\n${publicText}${publicText}`, "f").length, 2);
  assertThrows(() => readPublicKeys("# none\n", "f"), VolcastError, "no public key at all");
  assertThrows(() => readPublicKeys(`${publicText}x`, "f"), VolcastError, "line 2");
  assertThrows(() => readPublicKeys(privateText, "f"), VolcastError, "line 1");
  assertThrows(() => readSigningKey(publicText, "f"), VolcastError, "no private key");
});

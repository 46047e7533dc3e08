// Storage images of any expression against brute force: sets of VBNs that roots reach, and definitions
// followed word by word.

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type Expression, parseExpression, VolcastError } from "../../src/core/mod.ts";
import { applyImage, Image, planExpression, selectHistory } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { type Snapshot, Volume } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { assertClean, History } from "../helpers/history.ts";
import { forgeImage, parseImage } from "../helpers/parse_image.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import {
  assertRefuses,
  assertSame,
  imageOf,
  imageOfText,
  reachedFrom,
  type Replica,
  replicaOf,
  replicaWith,
  stateOf,
  twin,
} from "../helpers/replicas.ts";
import { copyOf, flipBit } from "../helpers/stores.ts";
import { bytesOf, collect, sourceOf, sourceOfImage } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

type Sets = ReadonlyMap<string, Set<number>>;

/** A volume with some snapshots, some deleted, their blocks used again. */
async function world(random: Random): Promise<{ history: History; sets: Sets }> {
  const history = await History.begin(new MemoryStore(random.pick([3000, 100_000])), random);
  const count = random.between(3, 6);
  for (let round = 0; history.kept.length < count && round < 30; round++) {
    await history.skip(random.below(40_000));
    await history.change(random.between(1, 25));
    await history.snapshot();
    if (random.oneIn(3) && history.kept.length > 2) {
      await history.deleteSnapshot(random.pick(history.kept));
    }
  }
  const sets = new Map(
    history.volume.snapshots().map((snapshot) => [
      snapshot.name,
      reachedFrom(history.volume, snapshot),
    ]),
  );
  return { history, sets };
}

function randomText(random: Random, names: readonly string[], depth = 3): string {
  if (depth === 0 || random.oneIn(4)) return random.pick(names);
  const operator = random.pick(["+", "+", "-", "-", "&"]);
  const [left, right] = [0, 1].map(() => randomText(random, names, depth - 1));
  return `${left} ${operator} ${random.oneIn(3) || !right.includes(" ") ? right : `(${right})`}`;
}

function setOf(expression: Expression, sets: Sets): Set<number> {
  if (expression.kind === "name") return sets.get(expression.name)!;
  const [left, right] = [setOf(expression.left, sets), setOf(expression.right, sets)];
  if (expression.kind === "+") return left.union(right);
  return expression.kind === "-" ? left.difference(right) : left.intersection(right);
}

/** Names with the signs that they have, counted on the way down. */
function signed(expression: Expression, minus = 0): [name: string, minus: number][] {
  if (expression.kind === "name") return [[expression.name, minus % 2]];
  const { kind, left, right } = expression;
  return [...signed(left, minus), ...signed(right, minus + (kind === "-" ? 1 : 0))];
}

interface Ends {
  readonly tops: string[];
  /** Any one of them is enough. */
  readonly alternatives: string[];
  /** All are needed. */
  readonly required: string[];
}

/** The definitions at the head of storage_image.ts, on sets. `undefined`: a fragment. */
function endsOf(expression: Expression, sets: Sets, order: readonly string[]): Ends | undefined {
  const blocks = setOf(expression, sets);
  const signs = signed(expression);
  const withSign = (sign: number) =>
    order.filter((name) => signs.some(([other, minus]) => other === name && minus === sign));
  const [positive, negative] = [withSign(0), withSign(1)];
  const lacks = (name: string) => sets.get(name)!.difference(blocks);
  const ofBases = negative.reduce((all, name) => all.union(sets.get(name)!), new Set<number>());
  let tops = positive.filter((name) => lacks(name).isSubsetOf(ofBases));
  const ofTops = tops.reduce((all, name) => all.union(sets.get(name)!), new Set<number>());
  if (tops.length === 0 || !blocks.isSubsetOf(ofTops)) return undefined;
  // 'a + b - c' is an increment on c, whatever the planes are.
  const isIncrement = /^[^-&()]+ - \S+$/.test(textOf(expression));
  if (isIncrement) {
    const rest = tops.filter((name) => name !== negative[0]);
    if (rest.length > 0) tops = rest;
    return { tops, alternatives: negative, required: [] };
  }
  if (tops.every((name) => lacks(name).size === 0)) {
    return { tops, alternatives: [], required: [] };
  }
  const enough = negative.filter((name) =>
    tops.every((top) => lacks(top).isSubsetOf(sets.get(name)!))
  );
  const others = enough.filter((name) => !tops.includes(name));
  const alternatives = others.length > 0 ? others : enough;
  return { tops, alternatives, required: alternatives.length === 0 ? negative : [] };
}

function textOf(expression: Expression): string {
  if (expression.kind === "name") return expression.name;
  const right = textOf(expression.right);
  return `${textOf(expression.left)} ${expression.kind} ${
    expression.right.kind === "name" ? right : `(${right})`
  }`;
}

function endsIn(image: Image): Ends | undefined {
  if (image.header.fragment === true) return undefined;
  const named = (role: string) =>
    image.terms.filter((term) => term.role === role).map(({ snapshot }) => snapshot.name);
  const base = image.base === undefined ? [] : [image.base.name];
  const required = named("required");
  return {
    tops: [...named("top"), image.top.name],
    alternatives: required.length > 0 ? [] : [...named("alternative"), ...base],
    required: required.length > 0 ? [...required, ...base] : [],
  };
}

/** The image goes into a replica that has `bases`; every top is there then, and what was there before. */
async function checkApplies(
  history: History,
  image: Image,
  bases: readonly string[],
): Promise<void> {
  const what = `${image.query?.value} on ${bases}`;
  const replica = bases.length === 0
    ? {
      store: new MemoryStore(history.volume.zone.capacity),
      volume: Volume.incoming(new MemoryStore(1000), history.volume.volumeId),
    }
    : await replicaWith(history.volume, bases);
  if (bases.length === 0) {
    await replica.volume.close();
    replica.volume = Volume.incoming(replica.store, history.volume.volumeId);
  }
  if (replica.volume.hasRoot && replica.volume.current.id === image.top.id) {
    const error = await assertRejects(
      () => applyImage(replica.volume, sourceOfImage(image)),
      VolcastError,
    );
    assertEquals(error.kind, "nothing", what);
    await replica.volume.close();
    return;
  }
  const before = replica.volume.hasRoot ? replica.volume.snapshots().map(({ id }) => id) : [];
  const applied = await applyImage(replica.volume, sourceOfImage(image));
  assertEquals(applied.top, image.top.id, what);
  const { tops } = endsIn(image)!;
  assertEquals(applied.along ?? [], tops.slice(0, -1), what);
  const listed = replica.volume.snapshots().map(({ name }) => name);
  for (const top of tops) assert(listed.includes(top), `${what}: ${top} is not in ${listed}`);
  for (const snapshot of replica.volume.snapshots()) {
    // No top, and not there before: it would be listed without its blocks.
    assert(
      tops.includes(snapshot.name) || before.includes(snapshot.id),
      `${what}: ${snapshot.name}`,
    );
    assertSame(history, replica, snapshot.id);
    const kept = history.kept.find(({ id }) => id === snapshot.id)!;
    const view = replica.volume.view(snapshot.id);
    assertEquals(describe(view.fs), kept.model, `${what}: ${snapshot.name}`);
    view.release();
  }
  // What is older than the new top, and was not written over, has stayed.
  const byId = new Map(history.volume.snapshots().map((snapshot) => [snapshot.id, snapshot]));
  const basesToo = before.filter((id) => byId.get(id)!.cp < image.top.cp && isBase(image, id));
  for (const id of basesToo) {
    assert(replica.volume.find(id) !== undefined, `${what}: the base ${id} has stayed`);
  }
  assertClean(replica.volume);
  const found = Volume.open(copyOf(replica.store));
  assertEquals(stateOf(found), stateOf(replica.volume));
  assertClean(found);
  found.abandon();
  await replica.volume.close();
}

function isBase(image: Image, id: string): boolean {
  return image.base?.id === id ||
    image.terms.some(({ role, snapshot }) => role !== "top" && snapshot.id === id);
}

/** Refused, and nothing is written before. */
async function checkRefused(replica: Replica, image: Image, kind: string): Promise<VolcastError> {
  const { store, volume } = replica;
  const state = [volume.current, volume.snapshots(), structuredClone(volume.local)];
  const write = store.write.bind(store);
  let writes = 0;
  store.write = (...args) => {
    writes++;
    write(...args);
  };
  const error = await assertRejects(
    () => applyImage(volume, sourceOfImage(image)),
    VolcastError,
    undefined,
    image.query?.value,
  );
  store.write = write;
  assertEquals(error.kind, kind, `${image.query?.value}: ${error.message}`);
  assertEquals(writes, 0, `${image.query?.value}: something was written`);
  assertEquals([volume.current, volume.snapshots(), volume.local], state);
  return error;
}

test("an image of any expression is what brute force finds, and says what it restores", async () => {
  const kinds = { fragment: 0, full: 0, one: 0, many: 0, all: 0, tops: 0 };
  await forSeeds(seeds(100, 10), async (random) => {
    const { history, sets } = await world(random);
    const { volume } = history;
    const names = [...sets.keys()];
    for (let i = 0; i < 100; i++) {
      const text = randomText(random, names);
      const expression = parseExpression(text);
      const wanted = [...setOf(expression, sets)].sort((a, b) => a - b);
      const image = imageOfText(volume, text);
      const parsed = parseImage(await bytesOf(image));
      assertEquals([...parsed.blocks.keys()], wanted, text);
      assertEquals(parsed.length, image.byteCount);
      const block = new Uint8Array(4096);
      for (const [vbn, bytes] of parsed.blocks) {
        volume.io.store.read(vbn, block);
        assertEquals(bytes, block);
      }
      const ends = endsOf(expression, sets, names);
      assertEquals(endsIn(image), ends, text);
      const plan = planExpression(volume, text);
      assertEquals([plan.blocks, plan.bytes], [wanted.length, image.byteCount], text);
      assertEquals(plan.restores, ends?.tops ?? [], text);
      assertEquals(
        plan.bases,
        ends === undefined ? [] : [...ends.alternatives, ...ends.required],
        text,
      );
      if (ends === undefined) kinds.fragment++;
      else if (ends.required.length > 0) kinds.all++;
      else if (ends.alternatives.length > 1) kinds.many++;
      else if (ends.alternatives.length === 1) kinds.one++;
      else kinds.full++;
      if ((ends?.tops.length ?? 0) > 1) kinds.tops++;
    }
    assertEquals(volume.leases.size, 0);
    await history.close();
  });
  // Each case has come often enough to mean something.
  for (const [kind, count] of Object.entries(kinds)) assert(count >= 10, `${kind}: ${count}`);
});

test("images of random expressions restore every top, on every base that they name", async () => {
  let applied = 0;
  await forSeeds(seeds(200, 12), async (random) => {
    const { history, sets } = await world(random);
    const { volume } = history;
    const names = [...sets.keys()];
    for (let i = 0; i < 14; i++) {
      const image = imageOfText(volume, randomText(random, names));
      const ends = endsIn(image);
      if (ends === undefined) continue;
      const { alternatives, required } = ends;
      if (alternatives.length + required.length === 0) await checkApplies(history, image, []);
      if (required.length > 0) await checkApplies(history, image, required);
      for (const base of alternatives) {
        await checkApplies(history, image, [base]);
        // A target that has more than it needs.
        const at = names.indexOf(base);
        const older = names.slice(0, at).filter(() => random.oneIn(2));
        await checkApplies(history, image, [...older, base]);
      }
      applied++;
    }
    await history.close();
  });
  assert(applied > 60, `${applied} images were applied`);
});

test("an image is refused by a replica in another state before anything is written, with the missing link", async () => {
  let refused = 0;
  await forSeeds(seeds(300, 8), async (random) => {
    const { history, sets } = await world(random);
    const { volume } = history;
    const names = [...sets.keys()];
    const replicas = new Map<string, Replica>();
    for (const name of names) replicas.set(name, await replicaOf(volume, name));
    for (let i = 0; i < 25; i++) {
      const image = imageOfText(volume, randomText(random, names));
      const ends = endsIn(image);
      for (const [name, replica] of replicas) {
        if (image.top.name === name && ends !== undefined) {
          await checkRefused(replica, image, "nothing");
        } else if (ends === undefined) await checkRefused(replica, image, "unsupported");
        else if (!ends.alternatives.includes(name)) {
          const { message, hint } = await checkRefused(replica, image, "diverged");
          assertStringIncludes(message, `'${name}'`);
          const missing = ends.required.filter((base) => base !== name);
          for (const base of [...ends.alternatives, ...missing]) {
            assertStringIncludes(message, `'${base}' (${volume.resolve(base).id})`);
          }
          assert(hint.length > 20, hint);
          refused++;
        }
      }
    }
    for (const { volume } of replicas.values()) await volume.close();
    await history.close();
  });
  assert(refused > 200, `${refused} images were refused`);
});

test("levels of the source: applied in order, refused out of order with what comes first", async () => {
  const history = await History.begin(new MemoryStore(3000), new Random(7));
  for (let i = 0; i < 9; i++) {
    await history.change(20);
    await history.snapshot();
  }
  const { volume } = history;
  const level0 = imageOfText(volume, "s3 + s2 + s1");
  const level1 = imageOfText(volume, "s5 + s4 - s3");
  const level2 = imageOfText(volume, "s9 + s8 + s7 + s6 - s5");
  const cumulative = imageOfText(volume, "s9 + s8 - s3");
  const store = new MemoryStore(3000);
  const replica: Replica = { store, volume: Volume.incoming(store, volume.volumeId) };
  const none = await assertRejects(
    () => applyImage(replica.volume, sourceOfImage(level1)),
    VolcastError,
  );
  assertEquals([none.kind, none.hint], ["diverged", "Apply a full image first"]);
  await applyImage(replica.volume, sourceOfImage(level0));
  const early = await checkRefused(replica, level2, "diverged");
  assertStringIncludes(early.message, `its base is 's5' (${history.kept[4].id})`);
  assertStringIncludes(early.message, `the volume is at 's3' (${history.kept[2].id})`);
  assertEquals(early.hint, "Apply the image that leads from 's3' to 's5' first");
  const other = twin(replica);
  await applyImage(replica.volume, sourceOfImage(level1));
  const late = await checkRefused(replica, cumulative, "diverged");
  assertStringIncludes(late.message, "its base is 's3'");
  await checkRefused(replica, level0, "diverged");
  await applyImage(replica.volume, sourceOfImage(level2));
  await applyImage(other.volume, sourceOfImage(cumulative));
  const namesOf = ({ volume }: Replica) => volume.snapshots().map(({ name }) => name);
  assertEquals(namesOf(replica), ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"]);
  assertEquals(namesOf(other), ["s1", "s2", "s3", "s8", "s9"]);
  for (const one of [replica, other]) {
    for (const { id } of one.volume.snapshots()) assertSame(history, one, id);
    assertClean(one.volume);
    await one.volume.close();
  }
  await history.close();
});

test("equal images have equal bytes and names however they are written, at every node", async () => {
  await forSeeds([401, 403, 404, 405], async (random) => {
    const { history, sets } = await world(random);
    const { volume } = history;
    const names = [...sets.keys()];
    const replica = await replicaWith(volume, names);
    const tags = new Map<string, Uint8Array>();
    for (let i = 0; i < 40; i++) {
      const text = randomText(random, names);
      const here = imageOfText(volume, text);
      const there = imageOfText(replica.volume, text);
      const bytes = await bytesOf(here);
      assertEquals(await bytesOf(there), bytes, text);
      assertEquals([there.etag, there.query], [here.etag, here.query], text);
      // One tag never means two things.
      const known = tags.get(here.etag);
      if (known !== undefined) assertEquals(bytes, known, text);
      tags.set(here.etag, bytes);
      // By ids it is the same.
      if (here.query?.name === "select") {
        const again = imageOfText(volume, here.query.value);
        assertEquals([again.etag, again.query], [here.etag, here.query]);
      }
      for (let j = 0; j < 6; j++) {
        const from = random.below(bytes.length + 1);
        const to = from + random.below(bytes.length - from + 1);
        const image = j % 2 === 0 ? there : imageOfText(replica.volume, text);
        assertEquals(await collect(image.stream({ from, to })), bytes.subarray(from, to), text);
      }
      for (
        const from of [1023, 1024, 1025, Math.min(1024 + 288, bytes.length), bytes.length - 64]
      ) {
        const image = imageOfText(replica.volume, text);
        assertEquals(await collect(image.stream({ from })), bytes.subarray(from), text);
      }
    }
    const pairs = names.flatMap((a) => names.map((b) => [a, b]));
    // Without a common block, b would be whole in it, and need no base.
    const [a, b] = pairs.find(([a, b]) => a !== b && !sets.get(a)!.isDisjointFrom(sets.get(b)!))!;
    assertEquals(
      await bytesOf(imageOfText(volume, `(${b} + ${b}) - (${a} + (${a} & ${b}))`)),
      await bytesOf(imageOf(volume, b, a)),
    );
    assertEquals(imageOfText(volume, `${b} - (${a} + ${a})`).etag, imageOf(volume, b, a).etag);
    await history.close();
    await replica.volume.close();
  });
});

test("an image holds every snapshot that it names for as long as it is read", async () => {
  const history = await History.begin(new MemoryStore(3000), new Random(15));
  for (let i = 0; i < 4; i++) {
    await history.change(20);
    await history.snapshot();
  }
  const { volume } = history;
  const leased = () => volume.leases.leased().map(({ name }) => name).sort();
  for (
    const [text, names] of [
      ["s4 + s3 - s1", ["s1", "s3", "s4"]],
      ["s4 & s2", ["s2", "s4"]],
    ] as const
  ) {
    const image = imageOfText(volume, text);
    const reader = image.stream().getReader();
    await reader.read();
    assertEquals(leased(), [...names], text);
    await reader.cancel();
    assertEquals(leased(), []);
    // Deleted while it is read, and its blocks wanted by others: it comes whole all the same.
    const whole = await bytesOf(image);
    const slow = imageOfText(volume, text).stream().getReader();
    const parts: number[] = [];
    for (let part = await slow.read(); !part.done; part = await slow.read()) {
      if (parts.length === 0 && text === "s4 & s2") {
        await history.deleteSnapshot(history.kept[1]);
        await history.churn(3, 200_000);
      }
      for (const byte of part.value) parts.push(byte);
    }
    assertEquals(new Uint8Array(parts), whole);
  }
  await history.close();
});

test("a cut image of several tops goes on, and another one with the same ends does not take its place", async () => {
  const history = await History.begin(new MemoryStore(3000), new Random(16), {
    writeBytes: 200_000,
  });
  await history.volume.exclusive(({ fs }) => {
    fs.write(fs.create(2, "lasting", { type: "file" }), 0, history.random.bytes(50_000));
  });
  for (let i = 0; i < 4; i++) {
    await history.change(20);
    await history.snapshot();
  }
  const { volume } = history;
  const base = await replicaOf(volume, "s2");
  const image = imageOfText(volume, "s4 + s3 - s2");
  const bytes = await bytesOf(image);
  const { frameOffsets } = parseImage(bytes);
  const cut = frameOffsets[Math.floor(frameOffsets.length * 2 / 3)];
  const offsets: number[] = [];
  const source = (all: Uint8Array) => {
    const { open, retry } = sourceOf(all);
    return {
      retry,
      open: (offset: number) => {
        offsets.push(offset);
        return open(offset);
      },
    };
  };
  // The same top and base, and other blocks or other terms.
  const others = ["s4 - s2", "s4 + s1 - s2", "s4 - (s2 - s1)"];
  for (const other of others) {
    const { header } = imageOfText(volume, other);
    assertEquals([header.top, header.base], [image.header.top, image.header.base]);
  }
  const more = imageOfText(volume, others[2]);
  assertEquals(more.header.terms, undefined);
  assert(more.etag !== imageOf(volume, "s4", "s2").etag);
  assert(more.header.blockCount > imageOf(volume, "s4", "s2").header.blockCount);
  for (const other of others) {
    const target = twin(base);
    await assertRejects(() => applyImage(target.volume, sourceOf(bytes.subarray(0, cut))));
    const { transfer } = target.volume.local;
    assertEquals(transfer!.image, image.identity);
    assertEquals([transfer!.top, transfer!.base], [image.top.id, image.base!.id]);
    assert(transfer!.frames > 3);
    target.volume.abandon();
    const again: Replica = { store: target.store, volume: Volume.open(target.store) };
    offsets.length = 0;
    await applyImage(again.volume, source(await bytesOf(imageOfText(volume, other))));
    // From the start to the end in one piece.
    assertEquals(offsets, [0], other);
    assertSame(history, again, history.kept[3].id);
    await again.volume.close();

    const same = twin(base);
    await assertRejects(() => applyImage(same.volume, sourceOf(bytes.subarray(0, cut))));
    offsets.length = 0;
    const applied = await applyImage(same.volume, source(bytes));
    assertEquals(offsets, [0, cut]);
    assertEquals(applied.along, ["s3"]);
    for (const { id } of same.volume.snapshots()) assertSame(history, same, id);
    await same.volume.close();
  }
  await base.volume.close();
  await history.close();
});

test("applyImage refuses an image of several tops that lies about any of them, before the flip", async () => {
  await forSeeds(seeds(500, 3), async (random) => {
    const history = await History.begin(new MemoryStore(1500), random, { writeBytes: 20_000 });
    for (let i = 0; i < 4; i++) {
      await history.change(12);
      await history.snapshot();
    }
    const { volume } = history;
    const base = await replicaOf(volume, "s1");
    const { header, blocks, terms } = parseImage(
      await bytesOf(imageOfText(volume, "s4 + s3 + s2 - s1")),
    );
    const refuse = (forged: Uint8Array, what: string) => assertRefuses(base, forged, what);
    const honest = twin(base);
    await applyImage(honest.volume, sourceOf(forgeImage(header, blocks, [], { terms })));
    assertEquals(honest.volume.snapshots().length, 4);
    await honest.volume.close();
    for (const vbn of blocks.keys()) {
      const fewer = new Map(blocks);
      fewer.delete(vbn);
      await refuse(forgeImage(header, fewer, [], { terms }), `without VBN ${vbn}`);
      const block = blocks.get(vbn)!.slice();
      block[random.below(4096)] ^= 1 << random.below(8);
      const altered = new Map(blocks).set(vbn, block);
      await refuse(forgeImage(header, altered, [], { terms }), `VBN ${vbn} altered`);
    }
    for (let vbn = volume.zone.data.start; vbn < 1500; vbn += random.between(1, 60)) {
      if (blocks.has(vbn)) continue;
      const more = new Map(blocks).set(vbn, random.bytes(4096));
      await refuse(forgeImage(header, more, [], { terms }), `with VBN ${vbn}`);
    }
    // A root that is another snapshot's, of another consistency point, or none.
    for (const [at, value] of [[4, volume.resolve("s4").root.vbn], [4, [...blocks.keys()][3]]]) {
      const forged = terms.slice();
      new DataView(forged.buffer).setUint32(at, value, true);
      await refuse(forgeImage(header, blocks, [], { terms: forged }), `a term's root at ${value}`);
    }
    const later = terms.slice();
    new DataView(later.buffer).setBigUint64(8, BigInt(volume.resolve("s2").cp + 1), true);
    await refuse(forgeImage(header, blocks, [], { terms: later }), "a term of another CP");
    // Without the terms there are blocks of no top.
    await refuse(forgeImage(header, blocks, []), "without terms");
    await base.volume.close();
    await history.close();
  });
});

test("blocks that a base has already are compared: an image over a rotten one is refused", async () => {
  const history = await History.begin(new MemoryStore(3000), new Random(21));
  for (let i = 0; i < 3; i++) {
    await history.change(30);
    await history.snapshot();
  }
  const { volume } = history;
  const image = imageOfText(volume, "s3 - (s1 & s2)");
  assertEquals(endsIn(image)?.alternatives, ["s1", "s2"]);
  const sent = parseImage(await bytesOf(image)).blocks;
  const replica = await replicaOf(volume, "s2");
  const shared = [...reachedFrom(volume, volume.resolve("s2"))].filter((vbn) => sent.has(vbn));
  assert(shared.length > 5, "some of what is sent is there");
  flipBit(replica.store, shared[2], 99);
  const { current } = replica.volume;
  const error = await assertRejects(
    () => applyImage(replica.volume, sourceOfImage(image)),
    VolcastError,
    `another block at VBN ${shared[2]}`,
  );
  assertEquals(error.kind, "damaged");
  assertEquals(replica.volume.current, current);
  flipBit(replica.store, shared[2], 99);
  await applyImage(replica.volume, sourceOfImage(image));
  assertSame(history, replica, history.kept[2].id);
  assertClean(replica.volume);
  await replica.volume.close();
  await history.close();
});

test("copies that keep history: all that the top lists and the node has, down a chain", async () => {
  await forSeeds(seeds(600, 5), async (random) => {
    const history = await History.begin(new MemoryStore(3000), random, { writeBytes: 20_000 });
    const { volume } = history;
    const round = async () => {
      for (let i = random.between(1, 4); i > 0; i--) {
        await history.change(random.between(1, 12));
        await history.snapshot();
      }
    };
    await round();
    const ofTop = (parent: Volume, base?: Snapshot) =>
      Image.of(parent, selectHistory(parent, { snapshots: "all", base }));
    const empty = (): Replica => {
      const store = new MemoryStore(3000);
      return { store, volume: Volume.incoming(store, volume.volumeId) };
    };
    const [first, second] = [empty(), empty()];
    const idsOf = ({ volume }: { volume: Volume }) => volume.snapshots().map(({ id }) => id);
    await applyImage(first.volume, sourceOfImage(ofTop(volume)));
    assertEquals(idsOf(first), idsOf(history));
    await applyImage(second.volume, sourceOfImage(ofTop(first.volume)));
    for (let i = 0; i < 5; i++) {
      await round();
      // Deleted at the origin; what has it already keeps it while its blocks last.
      const needed = [first.volume.current.id, second.volume.current.id];
      const rest = history.kept.filter(({ id }) => !needed.includes(id));
      if (rest.length > 1 && random.oneIn(2)) await history.deleteSnapshot(rest[0]);
      if (volume.snapshots().at(-1)!.id === first.volume.current.id) continue;
      const image = ofTop(volume, first.volume.current);
      await applyImage(first.volume, sourceOfImage(image));
      // Everything that the origin has and that was not older than the base at the start.
      assertEquals(idsOf(first).filter((id) => volume.find(id)), idsOf(history));
      const byChild = ofTop(first.volume, second.volume.current);
      // The child's image is what the origin would send under that name, if it has them all still.
      if (byChild.query?.name === "snapshots" && random.oneIn(2)) {
        assert(byChild.terms.length > 0);
      }
      await applyImage(second.volume, sourceOfImage(byChild));
      assertEquals(idsOf(second).filter((id) => volume.find(id)), idsOf(history));
      for (const replica of [first, second]) {
        assertClean(replica.volume);
        for (const id of idsOf(replica)) if (volume.find(id)) assertSame(history, replica, id);
      }
    }
    await first.volume.close();
    await second.volume.close();
    await history.close();
  });
});

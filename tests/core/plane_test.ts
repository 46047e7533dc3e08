import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  BitPlane,
  difference,
  differingPages,
  differingWords,
  equalPlanes,
  forEachRunOfPage,
  hasBit,
  intersection,
  intersects,
  isEmpty,
  isWithin,
  PAGE_BITS,
  PAGE_WORDS,
  pageCountOf,
  type Plane,
  popcount,
  popcountPage,
  popcountWord,
  rank,
  type Run,
  runsOf,
  select,
  setBits,
  sum,
  ZERO_PAGE,
} from "../../src/core/mod.ts";
import { test } from "../helpers/strict.ts";

const PAGES = 4;
const BITS = PAGES * PAGE_BITS;
const OPTIONS = { numRuns: 150, seed: 20_251, verbose: 1 } as const;

/** Runs that like to begin and end at words and pages, and to be long. */
const runs: fc.Arbitrary<Run[]> = fc.array(
  fc.record({
    start: fc.oneof(
      fc.nat(BITS - 1),
      fc.nat(BITS / 32 - 1).map((word) => word * 32),
      fc.nat(PAGES - 1).map((page) => page * PAGE_BITS),
      fc.nat(PAGES - 1).map((page) => (page + 1) * PAGE_BITS - 1),
    ),
    count: fc.oneof(fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 2 * PAGE_BITS })),
  }),
  { maxLength: 12 },
).map((list) => list.map(({ start, count }) => ({ start, count: Math.min(count, BITS - start) })));

function modelOf(list: readonly Run[]): Set<number> {
  const bits = new Set<number>();
  for (const { start, count } of list) for (let i = 0; i < count; i++) bits.add(start + i);
  return bits;
}

function maskOf(list: Iterable<Run>): Uint8Array {
  const mask = new Uint8Array(BITS);
  for (const { start, count } of list) mask.fill(1, start, start + count);
  return mask;
}

function sorted(bits: Set<number>): number[] {
  return [...bits].sort((a, b) => a - b);
}

/** Runs as they must come: as long as possible, and cut where a page ends. */
function runsOfModel(bits: Set<number>): Run[] {
  const list: { start: number; count: number }[] = [];
  for (const bit of sorted(bits)) {
    const last = list.at(-1);
    if (last !== undefined && last.start + last.count === bit && bit % PAGE_BITS !== 0) {
      last.count++;
    } else list.push({ start: bit, count: 1 });
  }
  return list;
}

test("planes of runs have exactly the bits of a set, and give the runs back", () => {
  fc.assert(
    fc.property(runs, (list) => {
      const plane = BitPlane.ofRuns(PAGES, list);
      const model = modelOf(list);
      assertEquals([...runsOf(plane)], runsOfModel(model));
      assertEquals(popcount(plane), model.size);
      const pages = [...plane.pages()];
      assertEquals(pages, [...new Set(sorted(model).map((bit) => Math.floor(bit / PAGE_BITS)))]);
      assert(equalPlanes(plane, BitPlane.copyOf(plane)));
    }),
    OPTIONS,
  );
});

test("sum, difference and intersection are those of sets", () => {
  fc.assert(
    fc.property(runs, runs, runs, (a, b, c) => {
      const planes = [a, b, c].map((list) => BitPlane.ofRuns(PAGES, list));
      const [x, y, z] = [a, b, c].map(maskOf);
      const check = (plane: Plane, holds: (bit: number) => boolean) => {
        const mask = maskOf(runsOf(plane));
        for (let bit = 0; bit < BITS; bit++) {
          if ((mask[bit] === 1) !== holds(bit)) throw new Error(`bit ${bit} is ${mask[bit]}`);
        }
      };
      const has = (mask: Uint8Array, bit: number) => mask[bit] === 1;
      check(sum(...planes), (bit) => has(x, bit) || has(y, bit) || has(z, bit));
      check(sum(planes[0]), (bit) => has(x, bit));
      check(difference(planes[0], planes[1]), (bit) => has(x, bit) && !has(y, bit));
      check(intersection(planes[0], planes[1]), (bit) => has(x, bit) && has(y, bit));
      assertEquals(
        intersects(planes[0], planes[1]),
        x.some((_, bit) => has(x, bit) && has(y, bit)),
      );
      assertEquals(equalPlanes(planes[0], planes[1]), x.every((_, bit) => x[bit] === y[bit]));
      // Nested, as an expression makes them.
      check(
        difference(sum(planes[0], planes[1]), intersection(planes[1], planes[2])),
        (bit) => (has(x, bit) || has(y, bit)) && !(has(y, bit) && has(z, bit)),
      );
      const added = BitPlane.copyOf(planes[0]);
      added.add(planes[1]);
      assert(equalPlanes(added, sum(planes[0], planes[1])));
      check(planes[0], (bit) => has(x, bit));
    }),
    { ...OPTIONS, numRuns: 60 },
  );
});

test("rank and select count as a sorted list does, and are each other's inverse", () => {
  fc.assert(
    fc.property(runs, fc.array(fc.nat(BITS), { maxLength: 20 }), (list, probes) => {
      const plane = BitPlane.ofRuns(PAGES, list);
      const bits = sorted(modelOf(list));
      for (const probe of [...probes, 0, BITS]) {
        assertEquals(rank(plane, probe), bits.filter((bit) => bit < probe).length);
      }
      for (const ordinal of [...probes.map((probe) => probe % (bits.length + 1)), 0]) {
        assertEquals(select(plane, ordinal), bits[ordinal] ?? -1);
        if (ordinal < bits.length) assertEquals(rank(plane, select(plane, ordinal)), ordinal);
      }
      assertEquals(select(plane, bits.length), -1);
    }),
    { ...OPTIONS, numRuns: 60 },
  );
});

test("set, clear and has follow a set", () => {
  const changes = fc.array(fc.tuple(fc.boolean(), fc.nat(BITS - 1)), { maxLength: 200 });
  fc.assert(
    fc.property(runs, changes, (list, steps) => {
      const plane = BitPlane.ofRuns(PAGES, list);
      const model = modelOf(list);
      for (const [isSet, bit] of steps) {
        if (isSet) plane.set(bit);
        else plane.clear(bit);
        if (isSet) model.add(bit);
        else model.delete(bit);
        assertEquals(plane.has(bit), isSet);
        assertEquals(hasBit(plane, bit), isSet);
      }
      assertEquals([...runsOf(plane)], runsOfModel(model));
      plane.reset();
      assertEquals(popcount(plane), 0);
    }),
    { ...OPTIONS, numRuns: 50 },
  );
});

test("forEachRunOfPage finds every run in words made to confuse it", () => {
  const words = [
    0,
    0xffffffff,
    1,
    0x80000000,
    0x80000001,
    0x7fffffff,
    0xfffffffe,
    0x55555555,
    0xaaaaaaaa,
    0x0000ffff,
    0xffff0000,
    0x7ffffffe,
    0xdeadbeef,
  ];
  const check = (page: Uint32Array) => {
    const expected: number[][] = [];
    for (let bit = 0; bit < PAGE_BITS; bit++) {
      if ((page[bit >> 5] >>> (bit & 31) & 1) === 0) continue;
      const last = expected.at(-1);
      if (last !== undefined && last[0] + last[1] === bit) last[1]++;
      else expected.push([bit, 1]);
    }
    const found: number[][] = [];
    forEachRunOfPage(page, (start, count) => found.push([start, count]));
    assertEquals(found, expected);
    assertEquals(popcountPage(page), expected.reduce((total, [, count]) => total + count, 0));
  };
  // Every pair and triple of them side by side, at both ends of the page.
  for (const a of words) {
    for (const b of words) {
      const page = new Uint32Array(PAGE_WORDS);
      let at = 0;
      for (const c of words) {
        page.set([a, b, c, 0], at);
        page.set([c, b, a], at + 4);
        at += 8;
      }
      page.set([a, b], PAGE_WORDS - 2);
      check(page);
    }
  }
  check(new Uint32Array(PAGE_WORDS).fill(0xffffffff));
  check(ZERO_PAGE);
  check(new Uint32Array(PAGE_WORDS));
});

test("differingWords finds every word that is not the same, in order", () => {
  const changes = fc.array(fc.tuple(fc.nat(PAGE_WORDS - 1), fc.integer()), { maxLength: 40 });
  fc.assert(
    fc.property(runs, changes, (list, changed) => {
      const page = BitPlane.ofRuns(PAGES, list).page(0);
      const other = page.slice();
      for (const [word, value] of changed) other[word] ^= value;
      const expected = [...page.keys()].filter((word) => page[word] !== other[word]);
      const found = new Uint16Array(PAGE_WORDS);
      for (const [a, b] of [[page, other], [other, page]]) {
        assertEquals([...found.subarray(0, differingWords(a, b, found))], expected);
      }
      assertEquals(differingWords(page, page, found), 0);
    }),
    OPTIONS,
  );
  const all = differingWords(new Uint32Array(PAGE_WORDS).fill(1), ZERO_PAGE, new Uint16Array(1024));
  assertEquals(all, PAGE_WORDS);
});

test("differingPages are what one of two planes knows, or all pages of both", () => {
  const [a, b] = [[0, 2], [1, 2, 3]].map((pages) =>
    BitPlane.ofRuns(PAGES, pages.map((page) => ({ start: page * PAGE_BITS, count: 1 })))
  );
  assertEquals([...differingPages(a, b)], [0, 1, 2, 3]);
  assertEquals([...differingPages(new BitPlane(PAGES), a)], [0, 2]);
  const knows: Plane = {
    pageCount: PAGES,
    page: (index) => b.page(index),
    pages: () => b.pages(),
    differing: (other) => other === a ? [0, 1, 3] : undefined,
  };
  assertEquals([...differingPages(a, knows)], [0, 1, 3]);
  assertEquals([...differingPages(knows, a)], [0, 1, 3]);
  assertEquals([...differingPages(knows, b)], [1, 2, 3]);
});

test("popcountWord counts the bits of any word", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xffffffff }), (word) => {
      assertEquals(popcountWord(word), word.toString(2).replaceAll("0", "").length);
    }),
    { ...OPTIONS, numRuns: 2000 },
  );
});

test("a run at the end of 2^32 blocks is where it should be", () => {
  const plane = new BitPlane(pageCountOf(2 ** 32));
  assertEquals(plane.pageCount, 131_072);
  plane.setRun(2 ** 32 - 40_000, 40_000);
  assertEquals(popcount(plane), 40_000);
  assert(plane.has(2 ** 32 - 1) && hasBit(plane, 2 ** 32 - 40_000));
  assert(!plane.has(2 ** 32 - 40_001));
  assertEquals(select(plane, 39_999), 2 ** 32 - 1);
  assertEquals(rank(plane, 2 ** 32), 40_000);
  assertEquals([...runsOf(plane)].map(({ start }) => start), [
    2 ** 32 - 40_000,
    2 ** 32 - 32_768,
  ]);
  assertThrows(() => plane.set(2 ** 32));
});

test("planes of different sizes do not mix", () => {
  const [a, b] = [new BitPlane(2), new BitPlane(3)];
  for (const combine of [sum, difference, intersection]) assertThrows(() => combine(a, b));
  assertThrows(() => sum());
  assertThrows(() => a.writablePage(2));
  assertThrows(() => setBits(new Uint32Array(PAGE_WORDS), PAGE_BITS - 1, 2));
});

test("pageCountOf rounds up", () => {
  const counts: [blocks: number, pages: number][] = [[0, 0], [1, 1], [32_768, 1], [32_769, 2]];
  for (const [blocks, pages] of counts) assertEquals(pageCountOf(blocks), pages);
});

test("difference asks a plane where it differs, and looks nowhere else", () => {
  const base = new BitPlane(PAGES);
  const read: number[] = [];
  const top: Plane = {
    pageCount: PAGES,
    pages: () => [0, 1, 2, 3],
    page: (index) => {
      read.push(index);
      return new Uint32Array(PAGE_WORDS).fill(1);
    },
    differing: (other) => other === base ? [2] : undefined,
  };
  assertEquals(popcount(difference(top, base)), PAGE_WORDS);
  assertEquals(read, [2]);
  assertEquals(popcount(difference(top, new BitPlane(PAGES))), PAGE_WORDS * PAGES);
});

test("isEmpty and isWithin are what sets say", () => {
  const plane = (...bits: number[]) =>
    BitPlane.ofRuns(3, bits.map((start) => ({ start, count: 1 })));
  assert(isEmpty(plane()));
  assert(!isEmpty(plane(70_000)));
  const cleared = plane(5);
  cleared.clear(5);
  assert(isEmpty(cleared), "a page that is there and has no bit");
  assert(isWithin(plane(1, 40_000), plane(1, 2, 40_000)));
  assert(!isWithin(plane(1, 40_000), plane(1, 2, 40_001)));
  assert(isWithin(plane(), plane()));
});

test("a sum knows the pages in which it may differ from another plane, when all of it do", () => {
  const make = (pages: number[], known: number[] | undefined): Plane => {
    const plane = BitPlane.ofRuns(9, pages.map((page) => ({ start: page * PAGE_BITS, count: 1 })));
    return {
      pageCount: 9,
      page: (index) => plane.page(index),
      pages: () => plane.pages(),
      differing: () => known,
    };
  };
  const base = make([1, 2, 3], []);
  const all = sum(make([1, 2, 3, 7], [7]), make([1, 3, 5], [2, 5]));
  assertEquals([...all.differing!(base)!], [2, 5, 7]);
  assertEquals([...difference(all, base).pages()], [2, 5, 7]);
  assertEquals(popcount(difference(all, base)), 2);
  assertEquals(sum(make([1], [1]), make([2], undefined)).differing!(base), undefined);
  assertEquals(sum(base), base);
});

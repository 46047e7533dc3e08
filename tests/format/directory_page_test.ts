import { assert, assertEquals, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { DirectoryPage, encodeName, PAGE_KIND } from "../../src/format/mod.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";
import { compareUtf8 } from "../models/file_model.ts";

function emptyPage(): DirectoryPage {
  const page = new DirectoryPage(new Uint8Array(4096));
  page.format(PAGE_KIND.leaf);
  return page;
}

function contentOf(page: DirectoryPage): [string, number, number][] {
  return Array.from({ length: page.count }, (_, i) => [
    new TextDecoder().decode(page.name(i)),
    page.value(i),
    page.type(i),
  ]);
}

test("DirectoryPage follows a sorted list through inserts, removals and compactions", async () => {
  await forSeeds(seeds(1, 6), (random) => {
    const page = emptyPage();
    const model = new Map<string, [number, number]>();
    for (let step = 0; step < 1500; step++) {
      const name = "x".repeat(random.below(random.pick([3, 60, 250]))) + random.below(40);
      const key = encodeName(name);
      const index = page.find(key);
      assertEquals(index >= 0, model.has(name));
      if (index >= 0 && random.oneIn(3)) {
        page.setValue(index, step, step % 7);
        model.set(name, [step, step % 7]);
      } else if (index >= 0) {
        page.remove(index);
        model.delete(name);
      } else {
        const used = [...model.keys()].reduce((sum, known) => sum + known.length + 8, 0);
        assertEquals(page.used, used);
        assertEquals(page.fits(key), 16 + used + name.length + 8 <= 4096);
        if (!page.fits(key)) continue;
        page.insert(page.lowerBound(key), key, step, step % 7);
        model.set(name, [step, step % 7]);
      }
      page.verify();
      if (step % 50 === 0) {
        const sorted = [...model].sort(([a], [b]) => compareUtf8(a, b));
        assertEquals(contentOf(page), sorted.map(([known, [value, type]]) => [known, value, type]));
      }
    }
  });
});

test("DirectoryPage.moveTail moves the end and nothing else", () => {
  for (const from of [0, 1, 5, 10]) {
    const [page, target] = [emptyPage(), emptyPage()];
    for (let i = 0; i < 10; i++) page.insert(i, encodeName(`n${i}`), i, 0);
    const all = contentOf(page);
    page.moveTail(from, target);
    assertEquals([...contentOf(page), ...contentOf(target)], all);
    assertEquals(page.count, from);
    page.verify();
    target.verify();
  }
});

test("DirectoryPage.format keeps what page 0 says of the whole directory", () => {
  const page = emptyPage();
  page.entries = 77;
  page.free = 5;
  page.insert(0, encodeName("a"), 1, 0);
  page.format(PAGE_KIND.branch);
  assertEquals([page.entries, page.free, page.count, page.kind], [77, 5, 0, PAGE_KIND.branch]);
});

test("DirectoryPage.verify survives any bytes: it says what is wrong or finds an order", async () => {
  await forSeeds(seeds(10, 4), (random) => {
    for (let round = 0; round < 400; round++) {
      const page = emptyPage();
      for (let i = 0; i < 30; i++) {
        page.insert(i, encodeName(`name${`${i}`.padStart(3, "0")}`), i, 0);
      }
      for (let i = random.between(1, 4); i > 0; i--) {
        page.bytes[random.pick([random.below(16), 16 + random.below(60), random.below(4096)])] =
          random.below(256);
      }
      try {
        page.verify();
      } catch (error) {
        assert(error instanceof VolcastError && error.kind === "damaged", String(error));
        continue;
      }
      for (let i = 0; i < page.count; i++) assertEquals(page.find(page.name(i)), i);
    }
  });
});

test("DirectoryPage.verify names each thing that is wrong", () => {
  const build = () => {
    const page = emptyPage();
    for (const [i, name] of ["a", "b", "c"].entries()) page.insert(i, encodeName(name), i, 0);
    return { page, view: new DataView(page.bytes.buffer) };
  };
  const faults: [what: string, make: (made: ReturnType<typeof build>) => void][] = [
    ["kind 3", ({ page }) => page.format(PAGE_KIND.free)],
    ["kind 0", ({ view }) => view.setUint8(0, 0)],
    ["slots run into the heap", ({ view }) => view.setUint16(2, 2100, true)],
    ["slots run into the heap", ({ view }) => view.setUint16(4, 4097, true)],
    ["entry 0 lies at", ({ view }) => view.setUint16(16, 20, true)],
    ["entry 2 lies at", ({ view }) => view.setUint16(20, 4093, true)],
    ["ends behind the page", ({ page, view }) => page.bytes[view.getUint16(16, true) + 5] = 200],
    ["out of order", ({ page, view }) => page.bytes[view.getUint16(16, true) + 6] = 0x7a],
    ["out of order", ({ page, view }) => page.bytes[view.getUint16(16, true) + 6] = 0x62],
    ["of garbage in the heap", ({ view }) => view.setUint16(6, 1, true)],
  ];
  build().page.verify();
  for (const [what, make] of faults) {
    const made = build();
    make(made);
    const error = assertThrows(() => made.page.verify(), VolcastError, what);
    assertEquals(error.kind, "damaged");
  }
});

test("random names are where a search finds them", () => {
  const random = new Random(99);
  const page = emptyPage();
  while (true) {
    const key = random.bytes(random.between(1, 40));
    if (page.find(key) >= 0) continue;
    if (!page.fits(key)) break;
    page.insert(page.lowerBound(key), key, 1, 0);
  }
  page.verify();
  assert(page.count > 80);
});

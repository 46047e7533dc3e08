import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { VolcastError } from "../../src/core/mod.ts";
import { BLOCK_SIZE, checksum } from "../../src/format/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { BlockCache, BlockIo } from "../../src/volume/mod.ts";
import { BlockWindow } from "../../src/volume/block_window.ts";
import { test } from "../helpers/strict.ts";

const CAPACITY = 40;

function block(value: number): Uint8Array {
  return new Uint8Array(BLOCK_SIZE).fill(value);
}

function written(capacity = CAPACITY): { store: MemoryStore; io: BlockIo; window: BlockWindow } {
  const store = new MemoryStore(capacity);
  for (let vbn = 0; vbn < capacity; vbn++) store.write(vbn, block(vbn + 1));
  const io = new BlockIo(store, new BlockCache(0));
  return { store, io, window: new BlockWindow(io) };
}

const pointerTo = (vbn: number, value = vbn + 1) => ({ vbn, crc: checksum(block(value)) });

test("BlockWindow gives what the pointer says or nothing (I1), whatever is written between", () => {
  const step = fc.record({
    vbn: fc.nat(CAPACITY - 1),
    what: fc.constantFrom("scan", "scan", "scan", "read", "write", "writeRun", "past", "stale"),
  });
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const { store, io, window } = written();
    const now = Array.from({ length: CAPACITY }, (_, vbn) => vbn + 1);
    let next = 100;
    const read = (vbn: number) =>
      assertEquals(window.read(pointerTo(vbn, now[vbn])), block(now[vbn]), `VBN ${vbn}`);
    for (const { vbn, what } of steps) {
      if (what === "read") read(vbn);
      else if (what === "scan") { for (let i = vbn; i < Math.min(CAPACITY, vbn + 5); i++) read(i); }
      else if (what === "stale") {
        const old = pointerTo(vbn, 99);
        assertThrows(() => window.read(old), VolcastError, `VBN ${vbn}`);
      } else {
        now[vbn] = next++;
        const bytes = block(now[vbn]);
        if (what === "write") io.write(vbn, checksum(bytes), bytes);
        else if (what === "writeRun") io.writeRun(vbn, bytes);
        // As what a replica's image puts into its place.
        else store.write(vbn, bytes);
      }
    }
  }));
});

test("BlockWindow reads several blocks at once where they follow each other, up to the store's end", () => {
  const { store, window } = written();
  const reads: number[] = [];
  const read = store.read.bind(store);
  store.read = (vbn, target) => {
    reads.push(vbn, target.length / BLOCK_SIZE);
    read(vbn, target);
  };
  for (let vbn = 4; vbn < CAPACITY; vbn++) {
    for (let i = 0; i < 3; i++) assertEquals(window.read(pointerTo(vbn)), block(vbn + 1));
  }
  assertEquals(reads, [4, 1, 5, 16, 21, 16, 37, 3]);
});

test("BlockWindow lets a bad block hinder nobody but who asks for it", () => {
  const { store, io, window } = written();
  store.write(7, block(200));
  let broken = true;
  const read = store.read.bind(store);
  store.read = (vbn, target) => {
    if (broken && vbn <= 9 && 9 < vbn + target.length / BLOCK_SIZE) {
      throw new VolcastError("io", "Cannot read VBN 9");
    }
    read(vbn, target);
  };
  const noted: number[] = [];
  io.noted = ({ vbn }) => noted.push(vbn);
  const scan = () => {
    const failed: string[] = [];
    for (let vbn = 3; vbn < 30; vbn++) {
      try {
        assertEquals(window.read(pointerTo(vbn)), block(vbn + 1));
      } catch (error) {
        if (!(error instanceof VolcastError)) throw error;
        failed.push(`${vbn} ${error.kind}`);
      }
    }
    return failed;
  };
  assertEquals(scan(), ["7 damaged", "9 io"]);
  broken = false;
  assertEquals(scan(), ["7 damaged"]);
  assertEquals(noted, [7, 7]);
});

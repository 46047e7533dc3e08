import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { type ErrorKind, VolcastError } from "../../src/core/mod.ts";
import {
  BLOCK_SIZE,
  byteSize,
  bytesToHex,
  checkFileName,
  checkLabel,
  checksum,
  compareBytes,
  decodeAttributes,
  decodeInode,
  decodeName,
  decodePointers,
  decodeRoot,
  decodeSnapshots,
  decodeSuperblock,
  emptyInode,
  encodeAttributes,
  encodeInode,
  encodePointers,
  encodeRoot,
  encodeSnapshots,
  encodeSuperblock,
  equalBytes,
  FILE_TYPE,
  hexToBytes,
  isZeroBlock,
  MAX_BLOCKS,
  MAX_TAKEOVERS,
  MIN_BLOCKS,
  type Root,
  SHADOW_SLOTS,
  SNAPSHOT_ID_PATTERN,
  snapshotId,
  type SnapshotRecord,
  type Superblock,
  SUPERBLOCK_LAYOUT,
  typeOfMode,
  ZERO_CHECKSUM,
  zoneOf,
} from "../../src/format/mod.ts";
import { Random } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

const ID = "0123456789abcdef0123456789abcdef";
const OPTIONS = { numRuns: 200, seed: 5, verbose: 1 } as const;

function refuse(work: () => unknown, kind: ErrorKind): VolcastError {
  const error = assertThrows(work, VolcastError);
  assertEquals(error.kind, kind, error.message);
  return error;
}

const SUPERBLOCK: Superblock = {
  volumeId: ID,
  role: "replica",
  capacity: 1000,
  dataStart: 67,
  sequence: 2 ** 40,
  cp: 77,
  root: { vbn: 500, crc: 0xfedcba98 },
  applied: { name: "größe", time: -5n },
};

/** Puts the right checksum under a superblock that was changed by hand. */
function sealed(block: Uint8Array): Uint8Array {
  const at = SUPERBLOCK_LAYOUT.offsetOf("crc");
  new DataView(block.buffer).setUint32(at, checksum(block.subarray(0, at)), true);
  return block;
}

test("a superblock is read as it was written", () => {
  const { applied: _, ...origin } = { ...SUPERBLOCK, role: "origin" as const };
  const branched = { ...SUPERBLOCK, branch: { cp: 78, root: { vbn: 67, crc: 5 } } };
  const staged = { ...branched, remap: { head: { vbn: 999, crc: 6 }, count: 999 } };
  for (const superblock of [SUPERBLOCK, origin, branched, staged]) {
    assertEquals(decodeSuperblock(encodeSuperblock(superblock)), superblock);
  }
});

test("a superblock slot that was never written, or with any bit changed, is none", () => {
  assertEquals(decodeSuperblock(new Uint8Array(BLOCK_SIZE)), undefined);
  const block = encodeSuperblock(SUPERBLOCK);
  for (let bit = 0; bit < BLOCK_SIZE * 8; bit++) {
    block[bit >> 3] ^= 1 << (bit & 7);
    assertEquals(decodeSuperblock(block), undefined, `bit ${bit}`);
    block[bit >> 3] ^= 1 << (bit & 7);
  }
  for (let sector = 1; sector < 8; sector++) {
    const torn = encodeSuperblock({ ...SUPERBLOCK, cp: 78, sequence: 2 ** 40 + 1 });
    torn.set(block.subarray(0, sector * 512));
    assertEquals(decodeSuperblock(torn), undefined, `torn behind sector ${sector}`);
  }
});

test("a superblock of a version or with features unknown here is refused, not passed over", () => {
  const change = (field: "version" | "features" | "blockSize" | "role", value: number) => {
    const block = encodeSuperblock(SUPERBLOCK);
    const at = SUPERBLOCK_LAYOUT.offsetOf(field);
    if (field === "role") block[at] = value;
    else new DataView(block.buffer).setUint32(at, value, true);
    return sealed(block);
  };
  refuse(() => decodeSuperblock(change("version", 2)), "unsupported");
  refuse(() => decodeSuperblock(change("version", 0)), "unsupported");
  refuse(() => decodeSuperblock(change("features", 4)), "unsupported");
  refuse(() => decodeSuperblock(change("features", 7)), "unsupported");
  refuse(() => decodeSuperblock(change("features", 0x80000000)), "unsupported");
  refuse(() => decodeSuperblock(change("blockSize", 8192)), "damaged");
  refuse(() => decodeSuperblock(change("role", 2)), "damaged");
  const reserved = encodeSuperblock(SUPERBLOCK);
  reserved[4000] = 1;
  refuse(() => decodeSuperblock(sealed(reserved)), "damaged");
});

test("a superblock whose numbers do not fit each other is refused", () => {
  const lies: Partial<Superblock>[] = [
    { capacity: MAX_BLOCKS + 1 },
    { capacity: 67 },
    { dataStart: 1000 },
    { root: { vbn: 66, crc: 0 } },
    { root: { vbn: 1000, crc: 0 } },
  ];
  for (const lie of lies) {
    refuse(() => decodeSuperblock(encodeSuperblock({ ...SUPERBLOCK, ...lie })), "damaged");
  }
});

test("a superblock's branch is there with its flag only, at a replica, in bounds and ahead", () => {
  const root = { vbn: 500, crc: 1 };
  const lies: Partial<Superblock>[] = [
    { role: "origin", branch: { cp: 78, root } },
    { branch: { cp: 77, root } },
    { branch: { cp: 78, root: { vbn: 66, crc: 1 } } },
    { branch: { cp: 78, root: { vbn: 1000, crc: 1 } } },
  ];
  for (const lie of lies) {
    refuse(() => decodeSuperblock(encodeSuperblock({ ...SUPERBLOCK, ...lie })), "damaged");
  }
  for (const field of ["branchCp", "branchVbn", "branchCrc"] as const) {
    const unflagged = encodeSuperblock(SUPERBLOCK);
    unflagged[SUPERBLOCK_LAYOUT.offsetOf(field)] = 1;
    refuse(() => decodeSuperblock(sealed(unflagged)), "damaged");
  }
});

test("a superblock's map of staged blocks is there with its flag only, at a replica, in bounds", () => {
  const head = { vbn: 500, crc: 1 };
  const lies: Partial<Superblock>[] = [
    { role: "origin", remap: { head, count: 1 } },
    { remap: { head, count: 0 } },
    { remap: { head, count: 1000 } },
    { remap: { head: { vbn: 66, crc: 1 }, count: 1 } },
    { remap: { head: { vbn: 1000, crc: 1 }, count: 1 } },
  ];
  for (const lie of lies) {
    refuse(() => decodeSuperblock(encodeSuperblock({ ...SUPERBLOCK, ...lie })), "damaged");
  }
  for (const field of ["remapVbn", "remapCrc", "remapCount"] as const) {
    const unflagged = encodeSuperblock(SUPERBLOCK);
    unflagged[SUPERBLOCK_LAYOUT.offsetOf(field)] = 1;
    refuse(() => decodeSuperblock(sealed(unflagged)), "damaged");
  }
});

const ROOT: Root = {
  volumeId: ID,
  cp: 100,
  time: 10n,
  epoch: 3,
  nonce: new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]),
  inodeCount: 11,
  inodeLimit: 12,
  freeInode: 13,
  blockCount: 14,
  inodeFile: { ...emptyInode(), mode: FILE_TYPE.file, height: 2 },
  takeovers: [{ cp: 4, mark: "0123456789abcdef" }, { cp: 100, mark: "ff00000000000000" }],
};

test("a root is read as it was written, and nothing else is taken for one", () => {
  const block = encodeRoot(ROOT);
  const { volumeId, cp, time, nonce, inodeFile, epoch, takeovers } = decodeRoot(block);
  assertEquals({ volumeId, cp, time, nonce, inodeFile, epoch, takeovers }, {
    volumeId: ID,
    cp: 100,
    time: 10n,
    nonce: ROOT.nonce,
    inodeFile: ROOT.inodeFile,
    epoch: 3,
    takeovers: ROOT.takeovers,
  });
  refuse(() => decodeRoot(new Uint8Array(BLOCK_SIZE)), "damaged");
  block[3] ^= 1;
  refuse(() => decodeRoot(block), "damaged");
});

test("a root's takeovers are as many as its epoch says, in order, and none is later than the root", () => {
  const at = (...cps: number[]) => cps.map((cp) => ({ cp, mark: "0123456789abcdef" }));
  const many = Array.from({ length: MAX_TAKEOVERS }, (_, i) => i + 5);
  for (const [epoch, takeovers] of [[1, at()], [3, at(4, 100)], [90, at(...many)]] as const) {
    assertEquals(decodeRoot(encodeRoot({ ...ROOT, epoch, takeovers })).takeovers, takeovers);
  }
  const lies = [[1, at(4)], [2, at()], [2, at(101)], [3, at(5, 5)], [3, at(6, 5)], [
    0,
    at(),
  ]] as const;
  for (const [epoch, takeovers] of lies) {
    refuse(() => decodeRoot(encodeRoot({ ...ROOT, epoch, takeovers })), "damaged");
  }
});

test("an inode is read as it was written, and one too high is refused", () => {
  const bytes = new Uint8Array(1024);
  const inode = {
    ...emptyInode(),
    mode: FILE_TYPE.symlink | 0o777,
    mtime: -(2n ** 63n),
    height: 5,
    slots: new Random(1).bytes(128),
  };
  encodeInode(inode, bytes, 256);
  assertEquals(decodeInode(bytes, 256), inode);
  for (const lie of [{ height: 6 }, { attributeHeight: 6 }]) {
    encodeInode({ ...inode, ...lie }, bytes, 256);
    refuse(() => decodeInode(bytes, 256), "damaged");
  }
});

test("typeOfMode knows the seven types, and no other", () => {
  const { mask, ...types } = FILE_TYPE;
  for (const [name, mode] of Object.entries(types)) {
    assertEquals(typeOfMode(mode | 0o7777), name);
    assertEquals(mode & mask, mode);
  }
  for (const mode of [0, 0o777, 0o030000, 0o170000]) refuse(() => typeOfMode(mode), "damaged");
});

const labels = fc.stringMatching(/^[a-z0-9_][a-z0-9_.:@-]{0,40}$/);
const snapshots: fc.Arbitrary<SnapshotRecord> = fc.record({
  name: labels,
  cp: fc.integer({ min: 1, max: 2 ** 53 - 1 }),
  root: fc.record({ vbn: fc.nat(2 ** 32 - 1), crc: fc.nat(2 ** 32 - 1) }),
  time: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  blockCount: fc.maxSafeNat(),
}).chain((regular) =>
  fc.oneof(
    fc.constant(regular),
    fc.nat(SHADOW_SLOTS - 1).map((slot) => ({ ...regular, slot })),
  )
);

test("the tables of snapshots and pointers are read as they were written", () => {
  fc.assert(
    fc.property(fc.array(snapshots, { maxLength: 12 }), (table) => {
      assertEquals(decodeSnapshots(encodeSnapshots(table)), table);
      const pointers = table.map((record) => ({
        name: record.name,
        snapshot: snapshotId({ ...record, cp: record.cp % 10 ** 15 + 1 }),
      }));
      for (const { snapshot } of pointers) assert(SNAPSHOT_ID_PATTERN.test(snapshot), snapshot);
      assertEquals(decodePointers(encodePointers(pointers)), pointers);
    }),
    OPTIONS,
  );
  const long = { name: "n".repeat(255), cp: 1, root: { vbn: 1, crc: 1 }, time: 0n, blockCount: 0 };
  assertEquals(decodeSnapshots(encodeSnapshots([long])), [long]);
});

test("tables that do not follow their layout are refused", () => {
  const record = { name: "a", cp: 1, root: { vbn: 70, crc: 1 }, time: 0n, blockCount: 3 };
  const table = () => encodeSnapshots([record, record]);
  refuse(() => decodeSnapshots(table().subarray(1)), "damaged");
  const change = (at: number, value: number) => {
    const bytes = table();
    bytes[512 + at] = value;
    return bytes;
  };
  refuse(() => decodeSnapshots(change(32, 2)), "damaged"); // kind
  refuse(() => decodeSnapshots(change(33, 1)), "damaged"); // the slot of a regular snapshot
  const shadow = encodeSnapshots([{ ...record, slot: SHADOW_SLOTS }]);
  refuse(() => decodeSnapshots(shadow), "damaged");
  refuse(() => decodeSnapshots(change(35, 1)), "damaged"); // a name of 257 bytes
  refuse(() => decodeSnapshots(change(36, 0xff)), "damaged"); // not UTF-8
  refuse(() => decodeSnapshots(change(511, 1)), "damaged");
  const pointers = encodePointers([{ name: "m", snapshot: "1-00000001" }]);
  refuse(() => decodePointers(pointers.subarray(0, 500)), "damaged");
  pointers[13] = 1;
  refuse(() => decodePointers(pointers), "damaged");
});

test("SNAPSHOT_ID_PATTERN takes ids and nothing near them", () => {
  for (const id of ["1-00000000", "9007199254740991-ffffffff"]) {
    assert(SNAPSHOT_ID_PATTERN.test(id), id);
  }
  for (
    const text of ["0-00000000", "01-00000000", "1-0000000", "1-000000000", "1-0000000G", "-1", "1"]
  ) assert(!SNAPSHOT_ID_PATTERN.test(text), text);
});

test("checkFileName takes what a file can be called", () => {
  for (const name of ["a", "...", "a b", "\n", "-", "größe", "日本", "x".repeat(255), "🙂", "\\"]) {
    assertEquals(decodeName(checkFileName(name), "here"), name);
  }
  for (
    const name of [
      "",
      ".",
      "..",
      "a/b",
      "/",
      "a\0",
      "x".repeat(256),
      "ä".repeat(128),
      "a\ufffd",
      "\ud800",
    ]
  ) refuse(() => checkFileName(name), "usage");
  refuse(() => decodeName(new Uint8Array([0xc3, 0x28]), "here"), "damaged");
  // A byte order mark is part of a name like any other character.
  assertEquals(decodeName(checkFileName("\ufeffa"), "here"), "\ufeffa");
});

test("checkLabel takes names that can stand in a URL and in an expression", () => {
  for (const name of ["a", "june-5", "2026-11-23", "v1.2.3", "a:b@c", "_x", "größe", "1", "日本"]) {
    assertEquals(checkLabel("snapshot", name), name);
  }
  const refused = [
    "",
    "-a",
    ".a",
    "a b",
    "a/b",
    "a+b",
    "a&b",
    "(a)",
    "a\n",
    "a%20",
    "full",
    "active",
    "12-0123abcd",
    "x".repeat(256),
    "ä".repeat(128),
  ];
  for (const name of refused) refuse(() => checkLabel("snapshot", name), "usage");
  checkLabel("snapshot", "12-0123abcde");
});

test("extended attributes are the same bytes in whatever order they come", () => {
  const values = fc.uint8Array({ maxLength: 300 });
  const entries = fc.uniqueArray(
    fc.tuple(fc.string({ minLength: 1, maxLength: 20, unit: "grapheme" }), values),
    {
      selector: ([name]) => name,
      maxLength: 8,
    },
  );
  fc.assert(
    fc.property(entries, fc.option(values, { nil: undefined }), (list, descriptor) => {
      const sd = descriptor === undefined ? {} : { securityDescriptor: descriptor };
      const bytes = encodeAttributes({ xattrs: new Map(list), ...sd });
      assertEquals(bytes, encodeAttributes({ xattrs: new Map(list.toReversed()), ...sd }));
      const read = decodeAttributes(bytes);
      assertEquals(new Map([...read.xattrs].sort()), new Map([...list].sort()));
      assertEquals(read.securityDescriptor, descriptor);
      for (let cut = 1; cut < bytes.length; cut += 1 + Math.floor(bytes.length / 20)) {
        try {
          const part = decodeAttributes(bytes.subarray(0, cut));
          assert(part.xattrs.size < list.length + (descriptor ? 1 : 0), "a whole entry is missing");
        } catch (error) {
          assert(error instanceof VolcastError && error.kind === "damaged", String(error));
        }
      }
    }),
    OPTIONS,
  );
  refuse(() => decodeAttributes(new Uint8Array([3, 0, 0, 0, 0, 0])), "damaged");
  refuse(() => encodeAttributes({ xattrs: new Map([["", new Uint8Array(1)]]) }), "usage");
});

test("zoneOf leaves no gap and no overlap in a volume of any size", () => {
  for (const capacity of [MIN_BLOCKS, 257, 32_767, 32_768, 100_000, 2 ** 20, 2 ** 28, MAX_BLOCKS]) {
    const zone = zoneOf(capacity);
    let end = 2;
    for (const extent of [zone.owner, ...zone.localSlots, zone.localPlanes, zone.data]) {
      assertEquals(extent.start, end);
      assert(extent.count > 0);
      end += extent.count;
    }
    assertEquals(end, capacity);
    assertEquals(zone.capacity, capacity);
    const local = zone.data.start - 3;
    assertEquals(local, Math.floor(Math.min(65_536, Math.max(64, capacity / 512)) / 4) * 4);
    assertEquals(byteSize(zone.owner), 4096);
  }
  for (const capacity of [0, 255, MAX_BLOCKS + 1, 300.5, NaN, -1]) {
    refuse(() => zoneOf(capacity), "usage");
  }
});

test("isZeroBlock is right about single bits anywhere", () => {
  const block = new Uint8Array(BLOCK_SIZE);
  assert(isZeroBlock(block));
  assertEquals(checksum(block), ZERO_CHECKSUM);
  for (let at = 0; at < BLOCK_SIZE; at += 13) {
    block[at] = 1;
    assert(!isZeroBlock(block), `byte ${at}`);
    block[at] = 0;
  }
});

test("byte strings are compared and shown byte by byte", () => {
  const bytes = (...values: number[]) => new Uint8Array(values);
  assert(compareBytes(bytes(1, 2), bytes(1, 3)) < 0);
  assert(compareBytes(bytes(1), bytes(1, 0)) < 0);
  assert(compareBytes(bytes(255), bytes(1, 255)) > 0);
  assertEquals(compareBytes(bytes(1, 2), bytes(1, 2)), 0);
  assert(equalBytes(bytes(1, 2), bytes(1, 2)));
  assert(!equalBytes(bytes(1, 2), bytes(1, 2, 3)) && !equalBytes(bytes(1), bytes(2)));
  assertEquals(bytesToHex(hexToBytes(ID)), ID);
});

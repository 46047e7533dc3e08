import { assert } from "@std/assert";
import { importTree, type TreeEntry } from "../../src/archive/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Volume } from "../../src/volume/mod.ts";
import { test } from "../helpers/strict.ts";

const MIB = 2 ** 20;

test("importTree makes consistency points when much has gathered in memory, however many files come", async () => {
  const volume = await Volume.create(new MemoryStore(20_000), {
    dirtyBytes: MIB,
    checkpointMs: 2 ** 30,
  });
  let most = 0;
  const before = volume.superblock.cp;
  function* entries(): Generator<TreeEntry> {
    const base = { permissions: 0o755, uid: 0, gid: 0, mtime: 0n };
    yield { ...base, path: "", type: "directory", size: 0 };
    for (let i = 0; i < 6_000; i++) {
      most = Math.max(most, volume.dirtyBytes);
      if (i % 30 === 0) {
        yield { ...base, path: `d${Math.floor(i / 30)}`, type: "directory", size: 0 };
      }
      const bytes = new TextEncoder().encode(`${i}`);
      yield {
        ...base,
        path: `d${Math.floor(i / 30)}/f${i}`,
        type: "file",
        size: bytes.length,
        read: () => [bytes],
      };
    }
  }
  await volume.exclusive((writer) => importTree(writer, entries()));
  // It looks at every 256th entry: each may have changed an inode and a page of a directory since.
  assert(most <= MIB + 256 * 5120, `${most} bytes of changed metadata`);
  assert(volume.superblock.cp - before >= 2, "consistency points were made");
  await volume.close();
});

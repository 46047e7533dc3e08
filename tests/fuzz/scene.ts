/**
 * The volumes that hostile ones are made of: everything that a volume can have, in few blocks.
 *
 * @module
 */

import { INO } from "../../src/format/mod.ts";
import { applyImage, Image } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { type LiveFileSystem, Volume } from "../../src/volume/mod.ts";
import { History, tickingClock } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { copyOf } from "../helpers/stores.ts";
import { sourceOfImage } from "../helpers/streams.ts";

/** Blocks of every volume here. */
export const BLOCKS = 1500;

/** What they are made of. */
export interface Scene {
  /** An origin: snapshots `s1` to `s4`, of which `s2` is a shadow; `master` points at `s4`. */
  readonly origin: MemoryStore;
  /** A replica at `s3` that holds `s1`. */
  readonly replica: MemoryStore;
  /** The replica with local changes and a snapshot of them. */
  readonly branched: MemoryStore;
}

/** Volumes of the hostile ones' size are always opened so. */
export const OPTIONS = { cacheBytes: 0, now: tickingClock() } as const;

/** Makes the scene; the same every time but for the random numbers in roots. */
export async function makeScene(): Promise<Scene> {
  const random = new Random(42);
  const store = new MemoryStore(BLOCKS);
  const history = await History.begin(store, random, {
    writeBytes: 20_000,
    sparse: true,
    volume: { cacheBytes: 0 },
  });
  const { volume } = history;
  await volume.exclusive(({ fs }) => fill(fs, random));
  await volume.checkpoint();
  const replica = new MemoryStore(BLOCKS);
  const site = Volume.incoming(replica, volume.volumeId, OPTIONS);
  for (let i = 1; i <= 4; i++) {
    await change(volume, random, i);
    const pointers = i === 4 ? ["master"] : [];
    const { id } = await volume.exclusive((w) => w.takeSnapshot(`s${i}`, { pointers }));
    if (i === 2) await volume.exclusive((writer) => writer.shadowSnapshot(id));
    if (i === 1) await applyImage(site, sourceOfImage(new Image(volume, volume.resolve("s1"))));
    if (i === 3) {
      const image = new Image(volume, volume.resolve("s3"), volume.resolve("s1"));
      await applyImage(site, sourceOfImage(image), { drainMs: 0 });
    }
  }
  await change(volume, random, 9);
  await volume.close();
  await site.close();
  const branched = copyOf(replica);
  const local = Volume.open(branched, { ...OPTIONS, localWrites: true });
  await change(local, random, 5);
  await local.exclusive((writer) => writer.takeSnapshot("local1"));
  await local.close();
  return { origin: store, replica, branched };
}

function fill(fs: LiveFileSystem, random: Random): void {
  const directory = (parent: number, name: string) =>
    fs.create(parent, name, { type: "directory", permissions: 0o755 });
  const file = (parent: number, name: string, byteCount: number) => {
    const ino = fs.create(parent, name, { type: "file", permissions: 0o644 });
    fs.write(ino, 0, random.bytes(byteCount));
    return ino;
  };
  let deep: number = INO.root;
  for (let i = 0; i < 8; i++) deep = directory(deep, `d${i}`);
  file(deep, "bottom", 9000);
  const wide = directory(INO.root, "wide");
  const inline = file(wide, "inline", 100);
  for (let i = 0; i < 300; i++) fs.link(wide, `${i}-${"n".repeat(40)}`, inline);
  const sparse = fs.create(INO.root, "sparse", { type: "file", permissions: 0o600 });
  fs.write(sparse, 0, random.bytes(5000));
  fs.write(sparse, 40 * 2 ** 20, random.bytes(5000));
  const large = file(INO.root, "large", 200_000);
  fs.setExtendedAttributes(large, {
    xattrs: new Map([["user.small", random.bytes(10)], ["user.large", random.bytes(9000)]]),
    securityDescriptor: random.bytes(100),
  });
  fs.create(INO.root, "link", { type: "symlink", permissions: 0o777, target: "d0/d1" });
  fs.create(INO.root, "long", { type: "symlink", permissions: 0o777, target: "d0/".repeat(600) });
  fs.create(INO.root, "pipe", { type: "fifo", permissions: 0o600 });
}

async function change(volume: Volume, random: Random, round: number): Promise<void> {
  await volume.exclusive(({ fs }) => {
    const name = `round${round}`;
    const ino = fs.create(INO.root, name, { type: "file", permissions: 0o644 });
    fs.write(ino, 0, random.bytes(12_000));
    fs.write(fs.lookup(INO.root, "large")!, 8192 * round, random.bytes(5000));
    const before = `round${round - 1}`;
    if (fs.lookup(INO.root, before) !== undefined) fs.remove(INO.root, before);
  });
  await volume.checkpoint();
}

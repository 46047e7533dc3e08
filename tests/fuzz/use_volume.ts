/**
 * Everything that can be done with a volume, done to one that nobody vouches for.
 *
 * @module
 */

import { treeEntries } from "../../src/archive/mod.ts";
import { runsOf } from "../../src/core/mod.ts";
import { BLOCK_SIZE, INO, LABEL_PATTERN } from "../../src/format/mod.ts";
import {
  badBlocks,
  healFrom,
  Image,
  imageOfBlocks,
  planDelete,
  planExpression,
  resolveExpression,
  selectImage,
} from "../../src/image/mod.ts";
import type { MemoryStore } from "../../src/store/mod.ts";
import {
  diffTrees,
  type FileSystem,
  fsck,
  type Snapshot,
  Volume,
  type VolumeOptions,
} from "../../src/volume/mod.ts";
import { Random } from "../helpers/random.ts";
import { GuardStore } from "./guard_store.ts";
import { OPTIONS } from "./scene.ts";
import type { Watch } from "./watch.ts";

/** A volume that is right, from which blocks can be had. */
export type Healthy = () => Volume;

/**
 * Opens a volume and uses it: reads all of it, checks, plans, makes images, writes, takes and deletes
 * snapshots, opens it again, heals it.
 */
export async function useVolume(
  store: MemoryStore,
  watch: Watch,
  healthy: Healthy,
  options: VolumeOptions = {},
): Promise<void> {
  const guard = new GuardStore(store, watch);
  const open = () => Volume.open(guard, { ...OPTIONS, ...options });
  const volume = await watch.attempt("open", open);
  if (volume === undefined) return;
  try {
    await readAllOf(volume, watch);
    const report = await watch.attempt("fsck", () => fsck(volume));
    await makeImages(volume, watch);
    await heal(volume, watch, healthy);
    // A summary or a block map that is a lie is one that is believed: fsck tells of it.
    const used = () => report?.clean === true ? usedBy(volume, watch) : () => undefined;
    guard.inUse = used();
    await write(volume, watch, () => void (guard.inUse = used()));
  } finally {
    volume.abandon();
    guard.inUse = () => undefined;
  }
  const again = await watch.attempt("open again", open);
  if (again === undefined) return;
  await watch.attempt("fsck again", () => void fsck(again));
  await watch.attempt("promote", () => again.promote());
  await watch.attempt("go back", () => again.goBack(again.snapshots()[0] ?? again.current));
  again.abandon();
}

/** Blocks that the last root's plane or any snapshot's has. */
function usedBy(volume: Volume, watch: Watch): (vbn: number) => string | undefined {
  const used = new Map<number, string>();
  for (const snapshot of [volume.current, volume.active, ...volume.keptSnapshots()]) {
    try {
      for (const { start, count } of runsOf(volume.plane(snapshot))) {
        for (let i = 0; i < count; i++) used.set(start + i, snapshot.name);
      }
    } catch (error) {
      watch.refused("plane", error);
    }
  }
  return (vbn) => used.has(vbn) ? `'${used.get(vbn)}' uses it` : undefined;
}

async function readAllOf(volume: Volume, watch: Watch): Promise<void> {
  await watch.attempt("lists", () => {
    for (const snapshot of [...volume.snapshots(), ...volume.localSnapshots()]) {
      watch.spend(1, `a snapshot ${snapshot.id}`);
      const { name } = snapshot;
      if (!LABEL_PATTERN.test(name)) watch.problem(`A snapshot is called ${JSON.stringify(name)}`);
    }
    return [volume.pointers(), volume.shadows(), volume.badSuperblocks(), volume.history];
  });
  const roots = new Map([...volume.keptSnapshots(), volume.active, volume.current]
    .map((snapshot) => [snapshot.id, snapshot]));
  for (const snapshot of roots.values()) {
    const view = await watch.attempt("view", () => volume.view(snapshot.id));
    if (view === undefined) continue;
    await watch.attempt("read", () => readTree(view.fs, watch));
    await watch.attempt("paths", () => {
      for (const path of ["/d0/d1/d2/d3", "link/d2", "long", "wide/inline", "a/../b"]) {
        try {
          view.fs.resolve(path);
        } catch (error) {
          watch.refused("path", error);
        }
      }
    });
    view.release();
  }
  const [first] = volume.snapshots();
  if (first === undefined) return;
  await watch.attempt("diff", () => {
    const [a, b] = [volume.fileSystem(first), volume.fileSystem(volume.current)];
    for (const { path } of diffTrees(a, b)) watch.spend(1, `a difference ${path}`);
  });
}

/** Reads each file from its begin, and its end. */
function readTree(fs: FileSystem, watch: Watch): void {
  const buffer = new Uint8Array(16 * BLOCK_SIZE);
  const entries = treeEntries(fs);
  for (;;) {
    const { value: entry, done } = entries.next();
    if (done) return;
    watch.spend(1, `an entry ${entry.path}`);
    // What is made of names on a host, in a URL and in an archive relies on this.
    const odd = entry.path.split("/").find((name) => name === ".." || name === "." || name === "");
    if (entry.path !== "" && odd !== undefined) watch.problem(`An entry is called '${entry.path}'`);
    if (entry.type !== "file" || entry.linkTo !== undefined) continue;
    try {
      const ino = fs.resolve(entry.path, { followLast: false });
      for (const at of [0, 4000, Math.max(0, entry.size - 5000), entry.size, 41_943_040]) {
        fs.read(ino, at, buffer);
      }
    } catch (error) {
      watch.refused("content", error);
    }
  }
}

async function makeImages(volume: Volume, watch: Watch): Promise<void> {
  const names = volume.snapshots().map(({ id }) => id);
  const last = names.at(-1) ?? "active";
  for (const text of [last, `${last} - ${names[0] ?? last}`, "active", "active - s2"]) {
    await watch.attempt("plan", () => planExpression(volume, text));
    await watch.attempt("image", async () => {
      const image = Image.of(volume, selectImage(volume, resolveExpression(volume, text)));
      await drain(image.stream(), watch);
    });
  }
  await watch.attempt("plan delete", () => planDelete(volume, names.slice(0, 2)));
}

async function drain(stream: ReadableStream<Uint8Array>, watch: Watch): Promise<void> {
  for await (const part of stream) watch.spend(part.length / BLOCK_SIZE, "bytes of an image");
}

async function heal(volume: Volume, watch: Watch, healthy: Healthy): Promise<void> {
  const right = healthy();
  try {
    await watch.attempt("heal", async () => {
      const roots = [...volume.keptSnapshots(), volume.current];
      const steps = badBlocks(volume.io.store, roots);
      let step = steps.next();
      while (!step.done) step = steps.next();
      await healFrom(volume, [...step.value.values()], (snapshot, vbns) => {
        const here = right.resolve(snapshot.id);
        const image = imageOfBlocks(right, here, planeOf(right, here), vbns.join(","));
        return Promise.resolve(image.stream());
      });
    });
  } finally {
    right.abandon();
  }
}

function planeOf(volume: Volume, snapshot: Snapshot) {
  return volume.plane(snapshot);
}

async function write(volume: Volume, watch: Watch, again: () => void): Promise<void> {
  const random = new Random(7);
  const file = { type: "file", permissions: 0o644 } as const;
  const change = (what: string, work: Parameters<Volume["exclusive"]>[0]) =>
    watch.attempt(what, () => volume.exclusive(work));
  const find = (fs: FileSystem, path: string) => fs.resolve(path, { followLast: false });
  await change("create", ({ fs }) => {
    const ino = fs.create(INO.root, "new", file);
    fs.write(ino, 0, random.bytes(20_000));
  });
  await change("create many", ({ fs }) => {
    for (let i = 0; i < 40; i++) fs.create(find(fs, "wide"), `${i}-made-${"x".repeat(40)}`, file);
  });
  await change("write", ({ fs }) => void fs.write(find(fs, "large"), 5000, random.bytes(30_000)));
  await change(
    "write far",
    ({ fs }) => void fs.write(find(fs, "sparse"), 2 ** 25, new Uint8Array(9)),
  );
  await change("truncate", ({ fs }) => fs.truncate(find(fs, "sparse"), 4097));
  await change("remove", ({ fs }) => fs.remove(INO.root, "large"));
  await change("remove link", ({ fs }) => fs.remove(find(fs, "wide"), "inline"));
  await change(
    "rename",
    ({ fs }) =>
      fs.rename({ parent: INO.root, name: "d0" }, { parent: find(fs, "wide"), name: "moved" }),
  );
  await change(
    "attributes",
    ({ fs }) =>
      fs.setExtendedAttributes(find(fs, "wide/moved/d1/d2/d3/d4/d5/d6/d7/bottom"), {
        xattrs: new Map([["user.a", random.bytes(5000)]]),
      }),
  );
  await watch.attempt("checkpoint", () => volume.checkpoint());
  again();
  await change("snapshot", (writer) => writer.takeSnapshot("taken", { pointers: ["fresh"] }));
  again();
  const [first, second] = volume.keptSnapshots().map(({ id }) => id);
  if (first !== undefined) await change("shadow", (writer) => writer.shadowSnapshot(first));
  again();
  if (second !== undefined) await change("delete", (writer) => writer.deleteSnapshot(second));
  again();
  const [shadow] = volume.shadows();
  if (shadow !== undefined) await change("delete shadow", (w) => w.deleteSnapshot(shadow.id));
  again();
  await change("more", ({ fs }) => {
    fs.write(fs.create(INO.root, "more", file), 0, random.bytes(60_000));
  });
  await watch.attempt("local", () =>
    volume.updateLocal((state) => {
      state.sites.paris = { needs: [] };
    }));
  await watch.attempt("checkpoint again", () => volume.checkpoint());
}

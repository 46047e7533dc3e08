/**
 * A volume in a file of this host, held alone.
 *
 * @module
 */

import {
  type ImportOptions,
  type ImportReport,
  importTree,
  treeEntries,
  type TreeEntry,
} from "../archive/mod.ts";
import { VolcastError } from "../core/mod.ts";
import {
  imageOfExpression,
  imageWithHistory,
  type SnapshotInfo,
  snapshotJson,
  snapshotsJson,
  volumeStatus,
} from "../http/mod.ts";
import {
  type DeletePlan,
  type Image,
  type Plan,
  planDelete,
  planExpression,
  type RangedImage,
} from "../image/mod.ts";
import {
  ACTIVE,
  diffTrees,
  MASTER,
  type TreeChange,
  type View,
  type Volume,
} from "../volume/mod.ts";
import { openVolume } from "./open_volume.ts";
import type {
  Entries,
  FileDescription,
  ImageBytes,
  ImageRequest,
  PointerInfo,
  PublishOptions,
  ShadowInfo,
  Target,
} from "./target.ts";

/** Content is read in pieces of this many bytes. */
const CHUNK_BYTES = 2 ** 20;

/** See the module. */
export class LocalTarget implements Target {
  readonly name: string;
  readonly #volume: Volume;

  private constructor(path: string, volume: Volume) {
    this.name = path;
    this.#volume = volume;
  }

  /** @throws {VolcastError} See {@linkcode openVolume}. */
  static async open(path: string, options: { localWrites?: boolean } = {}): Promise<LocalTarget> {
    return new LocalTarget(path, await openVolume(path, options));
  }

  importTree(entries: Entries, options: ImportOptions = {}): Promise<ImportReport> {
    return this.#volume.exclusive(async (writer) => {
      const report = await importTree(writer, entries, options);
      await writer.checkpoint();
      return report;
    });
  }

  publish(
    entries: Entries,
    { as, pointer = MASTER, ...options }: PublishOptions,
  ): Promise<{ report: ImportReport; snapshot: SnapshotInfo }> {
    const volume = this.#volume;
    return volume.exclusive(async (writer) => {
      // Before a file is read: a name that is in use would make all of it for nothing.
      writer.checkSnapshotName(as, [pointer]);
      const report = await importTree(writer, entries, { ...options, prune: true });
      const snapshot = await writer.takeSnapshot(as, { pointers: [pointer] });
      return { report, snapshot: infoOf(volume, volume.resolve(snapshot.id)) };
    });
  }

  *entries(ref?: string, path?: string): Generator<TreeEntry> {
    const view = this.#view(ref);
    try {
      yield* treeEntries(view.fs, path);
    } finally {
      view.release();
    }
  }

  status(): Promise<Record<string, unknown>> {
    return Promise.resolve({ ...volumeStatus(this.#volume) });
  }

  snapshots(): Promise<SnapshotInfo[]> {
    return Promise.resolve(snapshotsJson(this.#volume));
  }

  async createSnapshot(
    name: string,
    options: { pointers?: string[] } = {},
  ): Promise<SnapshotInfo> {
    const snapshot = await this.#volume.exclusive((writer) => writer.takeSnapshot(name, options));
    return infoOf(this.#volume, snapshot);
  }

  async shadowSnapshot(ref: string): Promise<ShadowInfo> {
    const { id } = this.#volume.resolveBase(ref);
    const { shadow, released } = await this.#volume.exclusive((writer) =>
      writer.shadowSnapshot(id)
    );
    return { ...infoOf(this.#volume, shadow), releasedBlocks: released };
  }

  async deleteSnapshot(ref: string): Promise<void> {
    const { id } = this.#volume.resolveBase(ref);
    await this.#volume.exclusive((writer) => writer.deleteSnapshot(id));
  }

  pointers(): Promise<PointerInfo[]> {
    const volume = this.#volume;
    return Promise.resolve(
      volume.pointers().map(({ name, snapshot }) => ({
        name,
        snapshot,
        snapshotName: volume.resolve(snapshot).name,
      })),
    );
  }

  async setPointer(name: string, ref: string): Promise<PointerInfo> {
    const snapshot = this.#volume.resolve(ref);
    await this.#volume.exclusive((writer) => writer.setPointer(name, snapshot.id));
    return { name, snapshot: snapshot.id, snapshotName: snapshot.name };
  }

  plan(select: string): Promise<Plan> {
    return Promise.resolve().then(() => planExpression(this.#volume, select));
  }

  async *diff(from: string, to: string): AsyncGenerator<TreeChange> {
    const views: View[] = [];
    try {
      for (const ref of [from, to]) views.push(this.#volume.view(ref));
      yield* diffTrees(views[0].fs, views[1].fs);
    } finally {
      for (const view of views) view.release();
    }
  }

  async promote(): Promise<Record<string, unknown>> {
    await this.#volume.promote();
    return await this.status();
  }

  planDelete(refs: readonly string[]): Promise<DeletePlan> {
    return Promise.resolve().then(() => planDelete(this.#volume, refs));
  }

  stat(path: string, ref?: string): Promise<FileDescription> {
    return Promise.resolve().then(() => {
      const view = this.#view(ref);
      try {
        return describe(view, path);
      } finally {
        view.release();
      }
    });
  }

  async *list(path: string, ref?: string): AsyncGenerator<FileDescription> {
    const view = this.#view(ref);
    try {
      const ino = view.fs.resolve(path, { followLast: false });
      if (view.fs.stat(ino).type !== "directory") {
        yield describe(view, path);
        return;
      }
      const folder = absolute(path).replace(/\/$/, "");
      for (const { name } of view.fs.list(ino)) yield describe(view, `${folder}/${name}`);
    } finally {
      view.release();
    }
  }

  read(path: string, ref?: string): Promise<ReadableStream<Uint8Array>> {
    return Promise.resolve().then(() => {
      const view = this.#view(ref);
      try {
        return contentOf(view, path);
      } catch (error) {
        view.release();
        throw error;
      }
    });
  }

  image(wanted: ImageRequest): Promise<ImageBytes> {
    return Promise.resolve().then(() => bytesOf(this.#imageOf(wanted)));
  }

  #imageOf(wanted: ImageRequest): Image {
    return "select" in wanted
      ? imageOfExpression(this.#volume, wanted.select)
      : imageWithHistory(this.#volume, wanted);
  }

  rangedImage(wanted: ImageRequest): Promise<RangedImage> {
    return Promise.resolve().then(() => {
      const image = this.#imageOf(wanted);
      return {
        byteCount: image.byteCount,
        stream: (from: number, to: number) => image.stream({ from, to }),
      };
    });
  }

  close(): Promise<void> {
    return this.#volume.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** A reference that was left out means what readers of the volume see. */
  #view(ref?: string): View {
    return this.#volume.view(
      ref ?? (this.#volume.find(MASTER) === undefined ? ACTIVE : MASTER),
    );
  }
}

function bytesOf(image: Image): ImageBytes {
  return { stream: image.stream(), byteCount: image.byteCount };
}

function describe({ fs }: View, path: string): FileDescription {
  const ino = fs.resolve(path, { followLast: false });
  const info = fs.stat(ino);
  const { xattrs } = fs.attributes(ino);
  const full = absolute(path);
  return {
    path: full,
    name: full.slice(full.lastIndexOf("/") + 1),
    ...info,
    ...(info.type === "symlink" ? { target: fs.readLink(ino) } : {}),
    ...(xattrs.size === 0 ? {} : {
      xattrs: Object.fromEntries(
        [...xattrs].map(([name, value]) => [name, Buffer.from(value).toString("base64")]),
      ),
    }),
  };
}

/** The content of a file; the view is released at its end. */
function contentOf(view: View, path: string): ReadableStream<Uint8Array> {
  const ino = view.fs.resolve(path);
  const { type, size } = view.fs.stat(ino);
  if (type !== "file") {
    throw new VolcastError("usage", `Cannot read '${path}': it is a ${type}, not a file`);
  }
  let offset = 0;
  return new ReadableStream({
    pull(controller): void {
      const chunk = new Uint8Array(Math.min(CHUNK_BYTES, size - offset));
      if (chunk.length === 0) {
        view.release();
        return controller.close();
      }
      try {
        view.fs.read(ino, offset, chunk);
      } catch (error) {
        view.release();
        throw error;
      }
      offset += chunk.length;
      controller.enqueue(chunk);
    },
    cancel: () => view.release(),
  }, { highWaterMark: 0 });
}

function absolute(path: string): string {
  return `/${path.split("/").filter((name) => name !== "" && name !== ".").join("/")}`;
}

function infoOf(volume: Volume, snapshot: Parameters<typeof snapshotJson>[1]): SnapshotInfo {
  return snapshotJson(volume, snapshot) as unknown as SnapshotInfo;
}

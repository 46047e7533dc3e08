/**
 * A source and a standby in one process, joined by a line that can be made bad.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { Image } from "../../src/image/mod.ts";
import {
  Mirror,
  type MirrorOptions,
  type MirrorResult,
  Node,
  Receiver,
  type ReceiverOptions,
  type Standby,
  type StandbyPosition,
  type TakeOptions,
} from "../../src/replication/mod.ts";
import { createVolumeFile, exists, openVolumeFile, type Volume } from "../../src/volume/mod.ts";
import { assertClean } from "./history.ts";
import { bytesOf } from "./streams.ts";

/** A standby in this process: everything but HTTP is real. */
export class LocalStandby implements Standby {
  readonly name = "local";
  readonly receiver: () => Receiver;
  /** Bytes after which a part breaks off, once for each entry. */
  cuts: number[] = [];
  /** Called when a part has been cut, and before the sender knows. */
  onCut: () => void | Promise<void> = () => {};
  /** Called for each position asked and each part sent. */
  onCall: () => void | Promise<void> = () => {};
  /** The image arrives, and nobody hears of it. */
  loseNext = false;
  /** Bytes of a part. */
  partBytes = 300_000;
  /** Bytes that went over the line. */
  bytes = 0;
  /** Images that were handed over, or begun. */
  readonly images: { base: string | undefined; top: string; blocks: number }[] = [];

  constructor(receiver: () => Receiver) {
    this.receiver = receiver;
  }

  async position(signal?: AbortSignal): Promise<StandbyPosition> {
    await this.onCall();
    signal?.throwIfAborted();
    // As it comes over the line.
    return JSON.parse(JSON.stringify(this.receiver().position()));
  }

  async take(image: Image, options: TakeOptions): Promise<void> {
    const { base, top, volumeId } = image.name;
    this.images.push({ base, top, blocks: image.header.blockCount });
    const { coming } = this.receiver().position();
    let offset = coming?.top === top && coming.state === "wants" ? coming.offset! : 0;
    const name = { volumeId, top, ...(base === undefined ? {} : { base }), epoch: options.epoch };
    for (;;) {
      await this.onCall();
      options.signal?.throwIfAborted();
      const to = Math.min(image.byteCount, offset + this.partBytes);
      const { stream, isCut } = this.#line(image.stream({ from: offset, to }));
      const outcome = await this.receiver().put(name, { start: offset, stream });
      if (isCut()) {
        await this.onCut();
        throw new VolcastError("io", "the line is cut");
      }
      if (outcome.kind === "more") {
        offset = outcome.offset;
        options.progress?.(offset, image.byteCount);
        continue;
      }
      assert(outcome.kind !== "working");
      if (!this.loseNext) return;
      this.loseNext = false;
      throw new VolcastError("io", "the confirmation got lost");
    }
  }

  #line(
    stream: ReadableStream<Uint8Array>,
  ): { stream: ReadableStream<Uint8Array>; isCut: () => boolean } {
    const limit = this.cuts.shift() ?? Infinity;
    let position = 0;
    let isCut = false;
    const transform = (
      chunk: Uint8Array,
      controller: TransformStreamDefaultController<Uint8Array>,
    ) => {
      const passed = chunk.subarray(0, Math.max(0, limit - position));
      position += chunk.length;
      this.bytes += passed.length;
      if (passed.length > 0) controller.enqueue(passed);
      if (passed.length === chunk.length) return;
      isCut = true;
      controller.error(new Error("the line is cut"));
    };
    return { stream: stream.pipeThrough(new TransformStream({ transform })), isCut: () => isCut };
  }
}

/** A source and a standby with their files. */
export class MirrorPair implements AsyncDisposable {
  readonly directory: string = Deno.makeTempDirSync({ prefix: "volcast-mirror-" });
  readonly standbyOptions: ReceiverOptions = { waitMs: 2000, drainMs: 0 };
  source!: Node;
  standby!: Node;
  mirror!: Mirror;
  readonly line = new LocalStandby(() => this.standby.receiver!);

  static async make(byteCount = 32 * 2 ** 20): Promise<MirrorPair> {
    const pair = new MirrorPair();
    const path = `${pair.directory}/source.vol`;
    pair.source = new Node({
      name: "origin",
      path,
      volume: await createVolumeFile(path, byteCount),
    });
    pair.startStandby();
    pair.startMirror();
    return pair;
  }

  get volume(): Volume {
    return this.source.volume;
  }

  /** A new process at the source, with or without the volume having been closed. */
  startMirror(options: MirrorOptions = {}): void {
    this.mirror = new Mirror(this.source, this.line, options);
  }

  startStandby(): void {
    const path = `${this.directory}/standby.vol`;
    this.standby = new Node({
      name: "paris",
      path,
      ...(exists(path) ? { volume: openVolumeFile(path) } : {}),
    });
    this.standby.receiver = new Receiver(this.standby, this.standbyOptions);
  }

  /** The source's process ends, in order or at once; another one begins. */
  async restartSource(how: "in order" | "at once"): Promise<void> {
    const { path } = this.source;
    if (how === "at once") this.volume.abandon();
    else await this.volume.close();
    this.source = new Node({ name: "origin", path, volume: openVolumeFile(path) });
    this.startMirror();
  }

  /** The standby's process ends at once; another one begins with what is on disk at that moment. */
  async crashStandby(): Promise<void> {
    const { path } = this.standby;
    const files = [path, `${path}.incoming`].filter(exists);
    for (const file of files) Deno.copyFileSync(file, `${file}.found`);
    // What the old process does from here on, nobody will find.
    await this.standby.receiver!.stop();
    await this.standby.volumeIfAny?.close();
    for (const file of [path, `${path}.incoming`].filter(exists)) Deno.removeSync(file);
    for (const file of files) Deno.renameSync(`${file}.found`, file);
    this.startStandby();
  }

  /** Changes some files of the source. */
  async change(names: readonly string[], byteCount = 50_000): Promise<void> {
    await this.volume.exclusive(async (writer) => {
      for (const name of names) {
        const ino = writer.fs.lookup(INO.root, name) ??
          writer.fs.create(INO.root, name, { type: "file" });
        const content = new Uint8Array(byteCount);
        crypto.getRandomValues(content.subarray(0, Math.min(65536, byteCount)));
        // Blocks of zeros would be holes.
        content.fill(content[0] || 1, Math.min(65536, byteCount));
        writer.fs.truncate(ino, 0);
        writer.fs.write(ino, 0, content);
      }
      await writer.checkpoint();
    });
  }

  /** The standby has what the source has at the snapshot it stands on, to the byte and by the planes. */
  async assertSame(): Promise<void> {
    const there = this.standby.volume;
    const { id } = there.current;
    const here = this.volume.resolve(id);
    assertEquals(
      await bytesOf(new Image(there, there.resolve(id))),
      await bytesOf(new Image(this.volume, here)),
    );
    assertClean(there);
    assertClean(this.volume);
  }

  /** A round that must have sent something. */
  async sent(): Promise<Exclude<MirrorResult, { kind: "nothing" }>> {
    const result = await this.mirror.round();
    if (result.kind === "nothing") throw new Error("nothing was sent");
    return result;
  }

  /** Names of the source's snapshots. */
  snapshots(): string[] {
    return this.volume.snapshots().map(({ name }) => name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.standby.receiver?.stop();
    await this.volume.close();
    await this.standby.volumeIfAny?.close();
    Deno.removeSync(this.directory, { recursive: true });
  }
}

/**
 * What it costs to choose an increment, with marks and by logical difference, in volumes of different
 * sizes with the same changes; and a whole turn of a mirror but its transfer. Run: deno task bench:micro
 *
 * The planes of a dense volume are full; those of a sparse one hold little but what was changed.
 *
 * @module
 */

import { difference, PAGE_BITS, type Plane, popcount } from "../../src/core/mod.ts";
import { INO } from "../../src/format/mod.ts";
import { Image } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Marks, type PlaneChange, type Snapshot, Volume } from "../../src/volume/mod.ts";

const FILES = 200;
const FILE_BYTES = 20_000;

/** A volume in which a mirror turns again and again. */
class Subject {
  readonly volume: Volume;
  readonly marks: Marks;
  #round = 0;
  base!: Snapshot;
  top!: Snapshot;

  private constructor(volume: Volume) {
    this.volume = volume;
    this.marks = new Marks(volume.plane(volume.current).pageCount);
  }

  static async make(blocks: number, dense: boolean): Promise<Subject> {
    const volume = await Volume.create(new MemoryStore(blocks), { cacheBytes: 256 * 2 ** 20 });
    const subject = new Subject(volume);
    await volume.exclusive(async (writer) => {
      if (dense) {
        // All but the last 512 MiB are in use. No file reaches them; planes do not care.
        const pages = blocks / PAGE_BITS - 4;
        for (let page = 0; page < pages; page++) {
          const { start } = writer.space.allocateRun(PAGE_BITS);
          // A hole here and there, so that pages are not runs of one.
          for (let i = 0; i < 20; i++) writer.space.free(start + i * 50);
        }
      }
      for (let i = 0; i < FILES; i++) writer.fs.create(INO.root, `${i}`, { type: "file" });
      await writer.checkpoint();
      writer.space.marks.add(subject.marks);
    });
    for (let i = 0; i < 3; i++) await subject.turn();
    return subject;
  }

  /** The same changes in every volume: all files anew. */
  async change(): Promise<void> {
    await this.volume.exclusive((writer) => {
      const content = new Uint8Array(FILE_BYTES).fill(++this.#round);
      for (let i = 0; i < FILES; i++) {
        new DataView(content.buffer).setUint32(0, i);
        writer.fs.write(writer.fs.lookup(INO.root, `${i}`)!, 0, content);
      }
    });
  }

  /** Change, snapshot, choose, delete the old snapshot: all that the source does but sending. */
  async turn(): Promise<void> {
    await this.change();
    await this.volume.exclusive(async (writer) => {
      const old = this.base;
      this.base = this.top;
      this.marks.confirmed(this.base?.id ?? "");
      this.top = await writer.takeSnapshot(`s${this.#round}`, {
        taken: ({ id }) => this.marks.turn(id),
      });
      if (old !== undefined) await writer.deleteSnapshot(old.id);
    });
  }
}

function chosen(change: PlaneChange): number {
  return popcount(change.allocated) + popcount(change.deallocated);
}

const subjects: [string, Subject][] = [];
for (
  const [name, blocks, dense] of [
    ["1 GiB", 2 ** 18, false],
    ["64 GiB", 2 ** 24, false],
    ["1 TiB", 2 ** 28, false],
    ["1 GiB dense", 2 ** 18, true],
    ["64 GiB dense", 2 ** 24, true],
    ["1 TiB dense", 2 ** 28, true],
  ] as const
) {
  subjects.push([name, await Subject.make(blocks, dense)]);
}

for (const [name, { marks, base, top }] of subjects) {
  const change = marks.between(base.id, top.id)!;
  const count = chosen(change);
  Deno.bench(`${name}: choose ${count} blocks by marks`, { group: "by marks" }, () => {
    if (chosen(marks.between(base.id, top.id)!) !== count) throw new Error("not chosen");
  });
}

for (const [name, { volume, marks, base, top }] of subjects) {
  const count = chosen(marks.between(base.id, top.id)!);
  Deno.bench(`${name}: where the trees differ`, { group: "by the trees of the planes" }, () => {
    const [a, b] = [volume.plane(top), volume.plane(base)];
    const found = chosen({ allocated: difference(a, b), deallocated: difference(b, a) });
    if (found !== count) throw new Error(`${found} chosen, not ${count}`);
  });
}

for (const [name, { volume, marks, base, top }] of subjects) {
  const count = chosen(marks.between(base.id, top.id)!);
  Deno.bench(`${name}: every page`, { group: "by logical difference of whole planes" }, () => {
    // Planes as they come, without looking at how they are stored.
    const plain = (plane: Plane): Plane => ({
      pageCount: plane.pageCount,
      page: (index) => plane.page(index),
      pages: () => plane.pages(),
    });
    const [a, b] = [plain(volume.plane(top)), plain(volume.plane(base))];
    const found = chosen({ allocated: difference(a, b), deallocated: difference(b, a) });
    if (found !== count) throw new Error(`${found} chosen, not ${count}`);
  });
}

for (const [name, { volume, marks, base, top }] of subjects) {
  Deno.bench(`${name}: plan the image from marks`, { group: "plan" }, () => {
    const image = Image.between(volume, top, base, marks.between(base.id, top.id));
    if (image.header.blockCount === 0) throw new Error("nothing was planned");
  });
}

for (const [name, subject] of subjects) {
  Deno.bench(`${name}: change, snapshot, delete the old one`, { group: "turn" }, async () => {
    await subject.turn();
  });
}

for (const [name, subject] of subjects) {
  Deno.bench(`${name}: the same, and make the stream`, { group: "turn and stream" }, async () => {
    await subject.turn();
    const { volume, marks, base, top } = subject;
    const image = Image.between(volume, top, base, marks.between(base.id, top.id));
    for await (const _ of image.stream());
  });
}

/**
 * What is true of every snapshot that ever was, kept outside of all volumes: what it shows, and the
 * content of each of its blocks. From that, and from no plane, follows what any image must have.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { type Expression, parseExpression } from "../../src/core/mod.ts";
import { checksum, equalBytes } from "../../src/format/mod.ts";
import type { Image } from "../../src/image/mod.ts";
import { isShadow, type Snapshot, type Volume } from "../../src/volume/mod.ts";
import { describe } from "../helpers/describe.ts";
import { parseImage } from "../helpers/parse_image.ts";
import { reachedFrom } from "../helpers/replicas.ts";
import { bytesOf } from "../helpers/streams.ts";
import type { FileModel } from "../models/file_model.ts";

/** A snapshot as it must be wherever it is. */
export interface Known {
  readonly name: string;
  readonly all: readonly string[];
  readonly model: FileModel;
  /** Its blocks by VBN; equal ones are one object. */
  readonly had: ReadonlyMap<number, Uint8Array>;
}

/** See the module. */
export class Truth {
  readonly #known = new Map<string, Known>();
  readonly #blocks = new Map<number, Uint8Array[]>();
  /** Digests of image streams by entity tag. */
  readonly #images = new Map<string, string>();
  /** Images whose bytes were compared, and those of them that somebody had made before. */
  readonly counts = { images: 0, again: 0, sinceShadows: 0, spared: 0 };

  /** Snapshots that ever were. */
  get size(): number {
    return this.#known.size;
  }

  /** A snapshot was just taken. Its blocks are found by walking its root, and its plane has to be those. */
  learn(volume: Volume, snapshot: Snapshot, model: FileModel): void {
    assert(!this.#known.has(snapshot.id), `${snapshot.id} was taken twice`);
    const reached = reachedFrom(volume, snapshot);
    assertSameVbns(vbnsOf(volume, snapshot), reached, `plane of '${snapshot.name}'`);
    const fs = volume.fileSystem(snapshot);
    assertEquals(describe(fs), model.describe(), `'${snapshot.name}' as it was taken`);
    const had = new Map([...reached].map((vbn) => [vbn, this.#blockOf(volume, vbn)]));
    this.#known.set(snapshot.id, {
      name: snapshot.name,
      all: describe(fs, { all: true }),
      model: model.clone(),
      had,
    });
  }

  /** Whether a snapshot was learned. */
  knows(id: string): boolean {
    return this.#known.has(id);
  }

  /** What is known of a snapshot. */
  of(id: string): Known {
    const known = this.#known.get(id);
    if (known === undefined) throw new Error(`nobody took ${id}`);
    return known;
  }

  /** A snapshot shows at a volume what it showed where it was taken. */
  checkShows(volume: Volume, snapshot: Snapshot): void {
    const shown = describe(volume.fileSystem(snapshot), { all: true });
    assertEquals(shown, this.of(snapshot.id).all, `snapshot '${snapshot.name}'`);
  }

  /** I4: its plane is what it was, and the blocks under it have the bytes that they had. */
  checkBlocks(volume: Volume, snapshot: Snapshot): void {
    const { had } = this.of(snapshot.id);
    const vbns = new Set(had.keys());
    assertSameVbns(vbnsOf(volume, snapshot), vbns, `plane of '${snapshot.name}'`);
    const block = new Uint8Array(4096);
    for (const [vbn, bytes] of had) {
      volume.io.store.read(vbn, block);
      assert(equalBytes(block, bytes), `VBN ${vbn} of '${snapshot.name}' has other bytes`);
    }
    assertSameVbns(reachedFrom(volume, snapshot), vbns, `blocks reached from '${snapshot.name}'`);
  }

  /**
   * An image against brute force: what its tops had and its base did not have, or had with other
   * content; since a shadow perhaps more. I5: its bytes are those of all images of this name.
   *
   * @returns The bytes.
   */
  async checkImage(image: Image): Promise<Uint8Array<ArrayBuffer>> {
    const tops = [
      image.top,
      ...image.terms.filter(({ role }) => role === "top").map((term) => term.snapshot),
    ];
    const base = image.base === undefined ? undefined : this.of(image.base.id).had;
    const wanted = new Map<number, Uint8Array>();
    const all = new Map<number, Uint8Array>();
    for (const { id } of tops) {
      for (const [vbn, bytes] of this.of(id).had) {
        all.set(vbn, bytes);
        if (base?.get(vbn) !== bytes) wanted.set(vbn, bytes);
      }
    }
    const what = `image ${image.etag}`;
    const { bytes, blocks } = await this.#bytesOf(image);
    for (const vbn of wanted.keys()) assert(blocks.has(vbn), `VBN ${vbn} is missing in ${what}`);
    const isSinceShadow = image.base !== undefined && isShadow(image.base);
    for (const [vbn, block] of blocks) {
      const expected = (isSinceShadow ? all : wanted).get(vbn);
      if (expected === undefined) throw new Error(`VBN ${vbn} is too much in ${what}`);
      assert(equalBytes(block, expected), `VBN ${vbn} has other bytes in ${what}`);
    }
    if (isSinceShadow) {
      this.counts.sinceShadows++;
      this.counts.spared += all.size - blocks.size;
    }
    return bytes;
  }

  /** The image of an expression of ids against sets. */
  async checkExpression(image: Image, text: string): Promise<Uint8Array<ArrayBuffer>> {
    const expression = parseExpression(text);
    const wanted = this.#setOf(expression);
    const { bytes, blocks } = await this.#bytesOf(image);
    assertSameVbns(new Set(blocks.keys()), wanted, `image of ${text}`);
    const content = this.#contentOf(expression);
    for (const [vbn, block] of blocks) {
      const allowed = content.get(vbn) ?? [];
      assert(
        allowed.some((one) => equalBytes(one, block)),
        `VBN ${vbn} has other bytes in the image of ${text}`,
      );
    }
    return bytes;
  }

  async #bytesOf(
    image: Image,
  ): Promise<{ bytes: Uint8Array<ArrayBuffer>; blocks: ReadonlyMap<number, Uint8Array> }> {
    const bytes = await bytesOf(image);
    const { blocks, length } = parseImage(bytes);
    assertEquals(length, image.byteCount);
    const digest = createHash("sha256").update(bytes).digest("hex");
    const before = this.#images.get(image.etag);
    assert(before === undefined || before === digest, `${image.etag} has had other bytes`);
    this.#images.set(image.etag, digest);
    this.counts.images++;
    if (before !== undefined) this.counts.again++;
    return { bytes, blocks };
  }

  #setOf(expression: Expression): Set<number> {
    if (expression.kind === "name") return new Set(this.of(expression.name).had.keys());
    const [left, right] = [this.#setOf(expression.left), this.#setOf(expression.right)];
    if (expression.kind === "+") return left.union(right);
    return expression.kind === "-" ? left.difference(right) : left.intersection(right);
  }

  #contentOf(expression: Expression): Map<number, Uint8Array[]> {
    if (expression.kind === "name") {
      return new Map([...this.of(expression.name).had].map(([vbn, bytes]) => [vbn, [bytes]]));
    }
    const content = this.#contentOf(expression.left);
    if (expression.kind === "-") return content;
    for (const [vbn, blocks] of this.#contentOf(expression.right)) {
      content.set(vbn, [...content.get(vbn) ?? [], ...blocks]);
    }
    return content;
  }

  #blockOf(volume: Volume, vbn: number): Uint8Array {
    const block = new Uint8Array(4096);
    volume.io.store.read(vbn, block);
    const crc = checksum(block);
    const alike = this.#blocks.get(crc);
    if (alike === undefined) this.#blocks.set(crc, [block]);
    const same = alike?.find((one) => equalBytes(one, block));
    if (same === undefined) alike?.push(block);
    return same ?? block;
  }
}

/** VBNs of a plane, word by word. */
function vbnsOf(volume: Volume, snapshot: Snapshot): Set<number> {
  const plane = volume.plane(snapshot);
  const vbns = new Set<number>();
  for (let index = 0; index < plane.pageCount; index++) {
    for (const [i, word] of plane.page(index).entries()) {
      for (let bit = 0; word !== 0 && bit < 32; bit++) {
        if ((word >>> bit & 1) === 1) vbns.add((index * 1024 + i) * 32 + bit);
      }
    }
  }
  return vbns;
}

/** Two sets of VBNs are equal; the first that is not in both is named. */
export function assertSameVbns(
  found: ReadonlySet<number>,
  wanted: ReadonlySet<number>,
  what: string,
): void {
  for (const vbn of wanted) assert(found.has(vbn), `VBN ${vbn} is missing in the ${what}`);
  for (const vbn of found) assert(wanted.has(vbn), `VBN ${vbn} is too much in the ${what}`);
}

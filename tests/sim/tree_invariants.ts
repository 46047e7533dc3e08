/**
 * What has to be so in a tree of nodes, at every moment and whatever has gone wrong, each by a function of
 * its own:
 *
 * 1. I1: a file that came whole has the content it had in the snapshot that the answer names ({@linkcode checkReading}).
 * 2. I2: what a host would find if power went now is a volume with a root that was published, whole, and all
 *    of the snapshots that it holds ({@linkcode checkDurable}).
 * 3. I3: what was acknowledged is there after a crash: publishes (`Publisher.checkFound`), and where a site
 *    says that it stands ({@linkcode Confirmations.asked}).
 * 4. I4: blocks under a plane are the same everywhere ({@linkcode checkHeld}).
 * 5. I5: an image of one name has one stream of bytes, whoever makes it, from whatever byte on ({@linkcode Images}).
 * 6. I6: what becomes current is whole, and was published ({@linkcode checkCurrent}).
 * 7. A site goes from one master to a later one, never back unless `master` was moved back ({@linkcode Masters}).
 * 8. What a parent notes of a site is where it stood once ({@linkcode Confirmations.checkNoted}).
 * 9. A site whose parent knew of it gets an increment, however long it was away (`Tree`).
 * 10. When all is quiet, nothing is left over ({@linkcode checkNothingLeft}).
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { assert } from "../../src/core/mod.ts";
import { snapshotId } from "../../src/format/mod.ts";
import { readSuperblock, Volume } from "../../src/volume/mod.ts";
import { assertClean } from "../helpers/history.ts";
import type { Random } from "../helpers/random.ts";
import type { FileModel, ModelNode } from "../models/file_model.ts";
import type { Publisher } from "./tree_publisher.ts";
import type { TreeNode } from "./tree_node.ts";
import type { Truth } from "./truth.ts";

/** I1. @param body What came; shorter than it should be where the line broke. */
export function checkReading(
  model: FileModel,
  path: string,
  { body, length }: { body: Uint8Array; length: number },
): void {
  const file = path.split("/").slice(1).reduce(
    (node: ModelNode | undefined, name) => node?.children.get(name),
    model.root,
  );
  assert(file !== undefined, `I1: there never was ${path}`);
  assertEquals(length, file.size, `I1: size of ${path}`);
  for (let at = 0; at < body.length; at += 4096) {
    const block = file.blocks.get(at / 4096);
    const came = body.subarray(at, at + 4096);
    assert(came.every((byte, i) => byte === (block?.[i] ?? 0)), `I1: content of ${path} at ${at}`);
  }
}

/** I2, I6: what is found if power goes now. */
export async function checkDurable(
  node: TreeNode,
  { truth, publisher, random }: { truth: Truth; publisher: Publisher | undefined; random: Random },
): Promise<void> {
  if (node.disk === undefined) return;
  const volume = Volume.open(node.disk.found(random), { cacheBytes: 2 ** 18 });
  try {
    if (volume.role === "origin") publisher?.checkFound(volume);
    else {
      assert(truth.knows(volume.current.id), `I2: ${node.name} would be at ${volume.current.id}`);
      await volume.settle(0);
      truth.checkShows(volume, volume.current);
    }
    checkHeld(volume, truth);
    assertClean(volume);
  } finally {
    volume.abandon();
  }
}

/** I4: every block of every snapshot that is held. */
export function checkHeld(volume: Volume, truth: Truth): void {
  // What nobody acknowledged is looked at when it is found.
  for (const one of volume.snapshots()) if (truth.knows(one.id)) truth.checkBlocks(volume, one);
}

/** I6: a root that has just become current. */
export function checkCurrent(node: TreeNode, volume: Volume, truth: Truth): void {
  const { current } = volume;
  assert(truth.knows(current.id), `I6: ${node.name} is at ${current.id}, which nobody published`);
  truth.checkShows(volume, current);
  truth.checkBlocks(volume, current);
}

/** Nothing is left of what was under way. */
export function checkNothingLeft(node: TreeNode): void {
  const { volume } = node;
  assert(volume !== undefined, `${node.name} has no volume`);
  const { local, superblock, leases } = volume;
  const what = `what is left at ${node.name}`;
  assertEquals(local.transfer, undefined, what);
  assertEquals(superblock.remap, undefined, what);
  assertEquals(leases.leased().map(({ id }) => id), [], what);
  assertEquals(node.incoming, undefined, what);
  assertEquals(node.process?.node.transfer, undefined, what);
  assertClean(volume);
}

/** What `master` was, one after the other, and where sites are in that. */
export class Masters {
  readonly #all: string[] = [];
  readonly #places = new Map<string, number>();

  /** The newest one. */
  get last(): string | undefined {
    return this.#all.at(-1);
  }

  /** The origin's pointer was seen. */
  seen(id: string): void {
    if (this.last !== id) this.#all.push(id);
  }

  /** A site is at a snapshot now. */
  moved(site: string, to: string): void {
    const from = this.#places.get(site) ?? 0;
    const place = this.#all.indexOf(to, from);
    assert(
      place >= 0,
      `${site} went back to ${to} from ${this.#all[from]}; masters were ${
        this.#all.slice(-8).join(", ")
      }`,
    );
    this.#places.set(site, place);
  }

  /** How far a site is. */
  placeOf(site: string): number {
    return this.#places.get(site) ?? 0;
  }

  /** A site has lost all that it had. */
  lost(site: string): void {
    this.#places.delete(site);
  }
}

/** Where sites say that they stand. */
export class Confirmations {
  readonly #stood = new Map<string, Set<string>>();
  readonly #looked = new WeakMap<TreeNode, unknown>();

  /** A site tells its parent: it would still stand there if power went now. */
  asked(node: TreeNode, body: Uint8Array): void {
    const { snapshot } = JSON.parse(new TextDecoder().decode(body));
    assert(node.disk !== undefined, `I3: ${node.name} confirms without a disk`);
    const durable = snapshotId(readSuperblock(node.disk.found()));
    assertEquals(snapshot, durable, `I3: ${node.name} confirms what is not durable`);
    let stood = this.#stood.get(node.name);
    if (stood === undefined) this.#stood.set(node.name, stood = new Set());
    stood.add(snapshot);
  }

  /** What a node has noted of others. */
  checkNoted(node: TreeNode, volume: Volume): void {
    if (this.#looked.get(node) === volume.local) return;
    this.#looked.set(node, volume.local);
    for (const [site, { snapshot, needs }] of Object.entries(volume.local.sites)) {
      const isKnown = snapshot !== undefined && this.#stood.get(site)?.has(snapshot) === true;
      assert(isKnown, `${node.name} has noted that ${site} is at ${snapshot}: it never was`);
      for (const id of needs) {
        const somebody = [...this.#stood.values()].some((ids) => ids.has(id));
        assert(somebody, `${node.name} has noted that ${site} needs ${id}: nobody stood there`);
      }
    }
  }
}

interface Seen {
  readonly bytes: Uint8Array;
  readonly isKnown: Uint8Array;
}

/** I5: the bytes of images by entity tag. */
export class Images {
  readonly #seen = new Map<string, Seen>();
  /** Bytes that somebody had sent before. */
  again = 0;

  /** A piece of an answer, before anything happens to it. */
  sends({ headers }: Response, offset: number, piece: Uint8Array): void {
    const etag = headers.get("etag");
    const isImage = headers.get("content-type") === "application/vnd.volcast.image" &&
      etag !== null && !headers.has("content-encoding");
    if (!isImage) return;
    const [, first, all] = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get("content-range") ?? "") ??
      ["", "0", headers.get("content-length")!];
    const seen = this.#of(etag, Number(all));
    const start = Number(first) + offset;
    assert(start + piece.length <= seen.bytes.length, `I5: ${etag} is longer than it says`);
    for (let i = 0; i < piece.length; i++) {
      const at = start + i;
      if (seen.isKnown[at] === 1) {
        assert(seen.bytes[at] === piece[i], `I5: ${etag} had another byte ${at} before`);
        this.again++;
      } else {
        seen.isKnown[at] = 1;
        seen.bytes[at] = piece[i];
      }
    }
  }

  #of(etag: string, byteCount: number): Seen {
    let seen = this.#seen.get(etag);
    if (seen === undefined) {
      seen = { bytes: new Uint8Array(byteCount), isKnown: new Uint8Array(byteCount) };
      this.#seen.set(etag, seen);
      if (this.#seen.size > 40) this.#seen.delete(this.#seen.keys().next().value!);
    }
    assertEquals(seen.bytes.length, byteCount, `I5: length of ${etag}`);
    return seen;
  }
}

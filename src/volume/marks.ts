/**
 * Mark-on-allocate and mark-on-deallocate: the blocks that an increment needs are noted when they are
 * given out and given back, so that choosing them costs nothing that grows with the volume.
 *
 * A pair of planes collects from one snapshot on. When the next one is taken, the pair is frozen, as what
 * leads from the one to the other, and an empty pair collects: the two change roles. A frozen pair whose
 * image did not arrive is joined with the one after it.
 *
 * Source: WO 00/07104, "Volume Mirroring", mark-on-allocate and mark-on-deallocate images.
 *
 * Invariants:
 * 1. With M the block map in memory and S the plane of the snapshot that a pair collects since, the
 *    pair is exactly M - S and S - M. Nothing else is assumed: not that S is kept, either.
 * 2. Roles change when M is the plane of the new snapshot: at its consistency point, before anything is
 *    given out or back for the one that lists it.
 * 3. A frozen pair is never written again: an image may be made from it while others collect.
 *
 * @module
 */

import {
  assert,
  BitPlane,
  difference,
  PAGE_BITS,
  PAGE_WORDS,
  type Plane,
  popcount,
  type Run,
  ZERO_PAGE,
} from "../core/mod.ts";

/** What leads from one plane to another: blocks that came, and blocks that went. */
export interface PlaneChange {
  /** In the later plane only. */
  readonly allocated: Plane;
  /** In the earlier plane only. */
  readonly deallocated: Plane;
}

/** A frozen pair and the snapshots it leads from and to. */
interface Frozen {
  readonly since: string;
  readonly upTo: string;
  readonly change: PlaneChange;
}

class Pair implements PlaneChange {
  readonly allocated: BitPlane;
  readonly deallocated: BitPlane;

  constructor(pageCount: number) {
    this.allocated = new BitPlane(pageCount);
    this.deallocated = new BitPlane(pageCount);
  }
}

/** See the module. One for each mirror; `Space` tells it of every block. */
export class Marks {
  readonly #pageCount: number;
  /** Id of the snapshot that the collecting pair is about. */
  #since: string | undefined;
  #collecting: Pair;
  #frozen: Frozen | undefined;

  /** @param pageCount Pages of the volume's planes. */
  constructor(pageCount: number) {
    this.#pageCount = pageCount;
    this.#collecting = new Pair(pageCount);
  }

  /** Id of the snapshot that is marked since, `undefined` before the first {@linkcode turn}. */
  get since(): string | undefined {
    return this.#since;
  }

  /** Blocks that an increment from the last confirmed snapshot to now would hold. */
  get waitingBlocks(): number {
    const change = this.#frozen === undefined
      ? this.#collecting
      : joined(this.#frozen.change, this.#collecting);
    return popcount(change.allocated);
  }

  /** Bytes of memory that the planes take: 4096 for each page of each plane that has marks. */
  get byteCount(): number {
    const pages = (plane: Plane) => [...plane.pages()].length;
    const of = (change?: PlaneChange) =>
      change === undefined ? 0 : pages(change.allocated) + pages(change.deallocated);
    return (of(this.#collecting) + of(this.#frozen?.change)) * PAGE_WORDS * 4;
  }

  /** Blocks were given out; all lie in one page. */
  allocated({ start, count }: Run): void {
    const { allocated, deallocated } = this.#collecting;
    allocated.setRun(start, count);
    const gone = deallocated.page(Math.floor(start / PAGE_BITS));
    if (gone === ZERO_PAGE) return;
    const first = start % PAGE_BITS;
    for (let bit = first; bit < first + count; bit++) {
      if ((gone[bit >>> 5] >>> (bit & 31) & 1) === 0) continue;
      // It was there, went, and is there again: no change of the plane.
      deallocated.clear(start - first + bit);
      allocated.clear(start - first + bit);
    }
  }

  /** A block was given back. */
  freed(vbn: number): void {
    const { allocated, deallocated } = this.#collecting;
    if (allocated.has(vbn)) allocated.clear(vbn);
    else deallocated.set(vbn);
  }

  /** The roles change: the block map now is the plane of snapshot `id`. */
  turn(id: string): void {
    if (this.#since !== undefined) {
      const change = this.#collecting;
      this.#frozen = this.#frozen === undefined
        ? { since: this.#since, upTo: id, change }
        : { since: this.#frozen.since, upTo: id, change: joined(this.#frozen.change, change) };
    }
    this.#since = id;
    this.#collecting = new Pair(this.#pageCount);
  }

  /**
   * Puts a logical difference in the place of the frozen pair: after a restart, or when the other end
   * stands elsewhere than was thought. Marks must have turned at `top` last.
   */
  rebuild(base: { id: string; plane: Plane }, top: { id: string; plane: Plane }): void {
    assert(top.id === this.#since, `marks since ${this.#since} are rebuilt up to ${top.id}`);
    this.#frozen = {
      since: base.id,
      upTo: top.id,
      change: {
        allocated: BitPlane.copyOf(difference(top.plane, base.plane)),
        deallocated: BitPlane.copyOf(difference(base.plane, top.plane)),
      },
    };
  }

  /** The other end stands on snapshot `id`: nothing before it is needed any more. */
  confirmed(id: string): void {
    if (this.#frozen?.upTo === id) this.#frozen = undefined;
  }

  /** What leads from `base` to `top`, where the marks know it. */
  between(base: string, top: string): PlaneChange | undefined {
    const frozen = this.#frozen;
    return frozen?.since === base && frozen.upTo === top ? frozen.change : undefined;
  }
}

/** What two changes, one after the other, are together. */
export function joined(first: PlaneChange, second: PlaneChange): PlaneChange {
  const both = (a: Plane, undone: Plane, b: Plane, done: Plane) => {
    const plane = BitPlane.copyOf(difference(a, undone));
    plane.add(difference(b, done));
    return plane;
  };
  return {
    allocated: both(first.allocated, second.deallocated, second.allocated, first.deallocated),
    deallocated: both(first.deallocated, second.allocated, second.deallocated, first.allocated),
  };
}

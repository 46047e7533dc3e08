/**
 * Where VBNs lie in a packed file, in memory: 4 bytes a block that is there, in pages, so that a
 * volume of 16 TiB of which little is there costs little.
 *
 * @module
 */

import type { MapEntry } from "../format/mod.ts";

const PAGE = 256;
/** Longest run of an entry: its count has 32 bits, and runs are joined in memory. */
const MAX_RUN = 2 ** 20;

/** See the module. Slot 0 means that a VBN is not there. */
export class SlotMap {
  readonly #pages = new Map<number, Uint32Array>();
  #size = 0;

  /** VBNs that are there. */
  get size(): number {
    return this.#size;
  }

  /** Where a VBN lies, 0 for nowhere. */
  get(vbn: number): number {
    return this.#pages.get(Math.floor(vbn / PAGE))?.[vbn % PAGE] ?? 0;
  }

  /** Puts consecutive VBNs into consecutive slots; slot 0 takes them out. */
  set({ vbn, count, slot }: MapEntry): void {
    for (let done = 0; done < count;) {
      const number = Math.floor((vbn + done) / PAGE);
      const first = (vbn + done) % PAGE;
      const length = Math.min(count - done, PAGE - first);
      let page = this.#pages.get(number);
      if (page === undefined && slot !== 0) {
        this.#pages.set(number, page = new Uint32Array(PAGE));
      }
      if (page !== undefined) this.#setPart(page, first, length, slot === 0 ? 0 : slot + done);
      done += length;
    }
  }

  /** The run that begins at a VBN, of at most `most`: consecutive slots, or nowhere all of them. */
  run(vbn: number, most: number): MapEntry {
    let page = this.#pages.get(Math.floor(vbn / PAGE));
    const slot = page?.[vbn % PAGE] ?? 0;
    let count = 1;
    for (; count < most; count++) {
      const at = (vbn + count) % PAGE;
      if (at === 0) page = this.#pages.get(Math.floor((vbn + count) / PAGE));
      if (page === undefined && slot === 0) {
        count = Math.min(most, count + PAGE - at) - 1;
        continue;
      }
      if ((page?.[at] ?? 0) !== (slot === 0 ? 0 : slot + count)) break;
    }
    return { vbn, count, slot };
  }

  /** What is there of `count` VBNs from `vbn` on, in order, in runs. */
  *runs(vbn = 0, count = Infinity): Generator<MapEntry> {
    let open: MapEntry | undefined;
    for (const number of this.#pagesOf(vbn, count)) {
      const page = this.#pages.get(number)!;
      const first = Math.max(0, vbn - number * PAGE);
      const end = Math.min(PAGE, vbn + count - number * PAGE);
      for (let i = first; i < end; i++) {
        const slot = page[i];
        if (slot === 0) continue;
        const at = number * PAGE + i;
        const joins = open !== undefined && at === open.vbn + open.count &&
          slot === open.slot + open.count && open.count < MAX_RUN;
        if (joins) open = { ...open!, count: open!.count + 1 };
        else {
          if (open !== undefined) yield open;
          open = { vbn: at, count: 1, slot };
        }
      }
    }
    if (open !== undefined) yield open;
  }

  /** Numbers of the pages in a range, ascending: looked up one by one, or where it is wide, all sifted. */
  #pagesOf(vbn: number, count: number): number[] {
    const first = Math.floor(vbn / PAGE);
    const last = Math.floor((vbn + count - 1) / PAGE);
    if (last - first < this.#pages.size) {
      const all = Array.from({ length: last - first + 1 }, (_, i) => first + i);
      return all.filter((number) => this.#pages.has(number));
    }
    return [...this.#pages.keys()].filter((number) => number >= first && number <= last)
      .sort((a, b) => a - b);
  }

  #setPart(page: Uint32Array, first: number, length: number, slot: number): void {
    for (let i = 0; i < length; i++) {
      const next = slot === 0 ? 0 : slot + i;
      this.#size += (next === 0 ? 0 : 1) - (page[first + i] === 0 ? 0 : 1);
      page[first + i] = next;
    }
  }
}

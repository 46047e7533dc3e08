/**
 * The source's side of a mirror: a standby is kept up to date with the file system as it is written.
 *
 * A round: ask the standby where it stands -> confirm that, let older snapshots go -> take a snapshot,
 * if anything changed -> hand over the image that leads there -> confirm. Whatever breaks, the next
 * round begins by asking again; so a lost confirmation, a crash of either end and a cut line are all
 * the same case.
 *
 * Source: WO 00/07104, "Volume Mirroring".
 *
 * Invariants:
 * 1. The snapshot that the standby stands on is kept, and so is the one on its way to it: both are
 *    noted for the site, which forbids deleting them. Older ones go after the standby told that it
 *    stands on a newer one.
 * 2. At most three snapshots are kept for a standby, however many rounds fail.
 * 3. A snapshot is taken only for a standby that can be reached and takes nothing else: a transfer
 *    that outlasts many rounds is followed by one of the newest state.
 * 4. A full image goes only to a standby that has nothing, or when the user said so.
 *
 * @module
 */

import { assert, messageOf, VolcastError } from "../core/mod.ts";
import { Image } from "../image/mod.ts";
import { Marks, showsChanges, type Snapshot, type Volume, type Writer } from "../volume/mod.ts";
import {
  deleteIfFree,
  isMirrorSnapshot,
  letAbandonedGo,
  letGo,
  nameForNew,
  nameOfMirrorSnapshot,
  siteOf,
  snapshotsOfMirror,
  THIS_PROCESS,
} from "./mirror_sites.ts";
import type { MirrorPhase, MirrorResult, MirrorStatus } from "./mirror_status.ts";
import type { Standby, StandbyPosition } from "./standby.ts";

/** Settings of a {@linkcode Mirror}. */
export interface MirrorOptions {
  /** Name of the standby among sites; what it calls itself by default. */
  readonly name?: string | undefined;
  /** Sends everything anew to a standby that stands on something unknown here; once. */
  readonly full?: boolean | undefined;
}

/** Whoever has the volume: the node, or a command that opens it now and then. */
export interface MirrorSource {
  readonly volume: Volume;
  /** The same, `undefined` while it is not open. */
  readonly volumeIfAny: Volume | undefined;
}

/** See the module. One for each standby. */
export class Mirror {
  readonly #source: MirrorSource;
  readonly #standby: Standby;
  readonly #options: MirrorOptions;
  #full: boolean;
  #name: string | undefined;
  /** The standby is not made yet. */
  #isBeginning = false;
  /** It has its first image. */
  #hasLanded = false;
  #marks: Marks | undefined;
  /** What the marks and the image are of: another one after the volume was opened anew. */
  #volume: Volume | undefined;
  #marked: Writer | undefined;
  /** The image of the round before, while its transfer is not confirmed: it knows its digest. */
  #image: Image | undefined;
  /** The consistency point up to which nothing waits. */
  #settledCp = -1;
  #phase: MirrorPhase = "idle";
  #since = Date.now();
  #aliveAt = performance.now();
  #standsOn: { id: string; name: string } | undefined;
  #succeededAt: number | undefined;
  #failures = 0;
  #failuresInAll = 0;
  #error: string | undefined;
  #transfer: MirrorStatus["transfer"];

  /** @param source Has the volume of an origin. */
  constructor(source: MirrorSource, standby: Standby, options: MirrorOptions = {}) {
    this.#source = source;
    this.#standby = standby;
    this.#options = options;
    this.#full = options.full ?? false;
    this.#name = options.name;
  }

  /** How it is. */
  get status(): MirrorStatus {
    return {
      to: this.#standby.name,
      name: this.#name,
      phase: this.#phase,
      since: this.#since,
      aliveAt: this.#aliveAt,
      standsOn: this.#standsOn,
      succeededAt: this.#succeededAt,
      failures: this.#failures,
      failuresInAll: this.#failuresInAll,
      error: this.#error,
      transfer: this.#transfer,
      lagBlocks: this.#lagBlocks(),
      markBytes: this.#marks?.byteCount ?? 0,
    };
  }

  /**
   * One round.
   * @throws {VolcastError} `io`, `busy`: try again later. `diverged`, `denied`, `not-found`, `full`: says
   *   what to do.
   */
  async round(signal?: AbortSignal): Promise<MirrorResult> {
    try {
      const result = await this.#round(signal);
      this.#succeededAt = Date.now();
      this.#failures = 0;
      this.#error = undefined;
      return result;
    } catch (error) {
      this.#failures++;
      this.#failuresInAll++;
      this.#error = messageOf(error);
      // Whatever is wrong with the image, the next one is made from the planes themselves.
      if (error instanceof VolcastError && error.kind === "damaged") this.#forget();
      await this.#letGoIfNothingCame();
      throw error;
    } finally {
      await this.#standby.release?.();
      this.#enter("idle");
      this.#transfer = undefined;
    }
  }

  async #round(signal?: AbortSignal): Promise<MirrorResult> {
    const begin = performance.now();
    this.#isBeginning = false;
    this.#enter("asking");
    const position = await this.#standby.position(signal);
    signal?.throwIfAborted();
    // Not before: who opens it now and then does not need it for a standby that cannot be reached.
    const { volume } = this.#source;
    requireOrigin(volume, this.#standby.name);
    if (this.#volume !== volume) this.#forget();
    this.#volume = volume;
    this.#name = this.#nameAt(volume, position);
    this.#baseFor(volume, position);
    if (position.coming?.state === "works") {
      throw new VolcastError(
        "busy",
        `Cannot mirror to ${this.#standby.name}: it works on another image, up to ${position.coming.top}`,
        "It is asked again",
      );
    }
    const ready = await this.#standby.prepare?.(this.#name, { full: this.#full }) ?? position;
    const base = this.#baseFor(volume, ready);
    this.#isBeginning = ready.isNew ?? false;
    this.#hasLanded = false;
    this.#enter("snapshot");
    await letAbandonedGo(volume, position);
    const begun = this.#begunFor(volume, ready, base);
    await this.#confirm(volume, base, begun);
    const top = begun ?? await this.#takeSnapshot(volume, base);
    if (top === undefined) {
      assert(base !== undefined, "nothing changed since something");
      return { kind: "nothing", name: base.name, top: base.id };
    }
    const image = this.#imageOf(volume, top, base);
    await this.#send(volume, image, signal);
    this.#isBeginning = false;
    this.#enter("confirming");
    await this.#confirm(volume, top);
    this.#full = false;
    const { blockCount: blocks } = image.header;
    return {
      kind: base === undefined ? "full" : "increment",
      name: top.name,
      top: top.id,
      ...(base === undefined ? {} : { base: base.id }),
      blocks,
      bytes: image.byteCount,
      ms: performance.now() - begin,
      resumed: begun !== undefined,
    };
  }

  /** Name of the standby among sites. */
  #nameAt(volume: Volume, position: StandbyPosition): string {
    const { name } = this.#options;
    if (name !== undefined) return name;
    return position.isNew ? nameForNew(volume, position) : this.#name ?? position.node;
  }

  /** The snapshot that the standby stands on; `undefined`: it gets a full image. */
  #baseFor(volume: Volume, position: StandbyPosition): Snapshot | undefined {
    const to = this.#standby.name;
    checkSameHistory(volume, position, this.#standby);
    const { current } = position;
    if (current === undefined || this.#full) return undefined;
    const base = volume.snapshots().find((snapshot) => snapshot.id === current.id);
    if (base !== undefined) return base;
    throw new VolcastError(
      "diverged",
      `Cannot mirror to ${to}: it stands on '${current.name}' (${current.id}), which this volume does ` +
        "not have (any more)",
      this.#standby.beginAnew ??
        "If it was written elsewhere, bring one of the two back to what both have: volcast resync. To " +
          "send everything anew in place of what it has: volcast mirror --full",
    );
  }

  /** The snapshot of a transfer that was begun and can be gone on with. */
  #begunFor(volume: Volume, position: StandbyPosition, base?: Snapshot): Snapshot | undefined {
    const name = this.#name!;
    const own = snapshotsOfMirror(volume, name);
    // A full image takes long; what came of it is worth more than being new. Increments follow it.
    if (base === undefined) return own.findLast(({ id }) => id !== siteOf(volume, name)?.snapshot);
    const { coming } = position;
    if (coming === undefined || coming.base !== base.id) return undefined;
    return own.find((snapshot) => snapshot.id === coming.top);
  }

  /**
   * Notes where the standby stands (`base`) and what is on its way to it, then lets the other snapshots
   * of this mirror go. Costs nothing where all of that is known.
   */
  async #confirm(volume: Volume, base?: Snapshot, begun?: Snapshot): Promise<void> {
    this.#standsOn = base && { id: base.id, name: base.name };
    if (base !== undefined) this.#marks?.confirmed(base.id);
    await this.#note(volume, base, begun);
    for (const { id } of snapshotsOfMirror(volume, this.#name!)) {
      if (id !== base?.id && id !== begun?.id) await deleteIfFree(volume, id);
    }
    if (this.#image?.top.id !== begun?.id) this.#image = undefined;
  }

  async #note(volume: Volume, base?: Snapshot, begun?: Snapshot): Promise<void> {
    const name = this.#name!;
    const needs = begun === undefined ? [] : [begun.id];
    const known = siteOf(volume, name);
    const beginning = this.#isBeginning ? THIS_PROCESS : undefined;
    const isKnown = known?.snapshot === base?.id && known?.needs.join() === needs.join() &&
      known?.beginning === beginning;
    if (isKnown) return;
    await volume.updateLocal((state) => {
      state.sites[name] = {
        ...(base === undefined ? {} : { snapshot: base.id }),
        needs,
        confirmedAt: Date.now(),
        ...(beginning === undefined ? {} : { beginning }),
      };
    });
  }

  /** What was kept for a mirror that could not be made goes, unless there is a base that needs it. */
  async #letGoIfNothingCame(): Promise<void> {
    const volume = this.#volume;
    if (!this.#isBeginning || this.#hasLanded || volume === undefined) return;
    const known = siteOf(volume, this.#name!);
    if (known?.beginning !== THIS_PROCESS || known.snapshot !== undefined) return;
    try {
      await letGo(volume, this.#name!);
    } catch (error) {
      // Why the round failed is what counts; the next process does the rest.
      if (!(error instanceof VolcastError)) throw error;
    }
  }

  /** A snapshot of now; `undefined` when nothing changed since `base`. */
  async #takeSnapshot(volume: Volume, base: Snapshot | undefined): Promise<Snapshot | undefined> {
    const taken = await volume.exclusive(async (writer) => {
      const marks = this.#marksAt(volume, writer);
      if (base !== undefined && !writer.isDirty && !this.#hasChanged(volume, base)) {
        this.#settledCp = volume.superblock.cp;
        return undefined;
      }
      const name = nameOfMirrorSnapshot(this.#name!, writer.snapshotCp);
      return await writer.takeSnapshot(name, { taken: ({ id }) => marks.turn(id) });
    });
    this.#alive();
    if (taken !== undefined) await this.#note(volume, base, taken);
    return taken;
  }

  #hasChanged(volume: Volume, base: Snapshot): boolean {
    const { current } = volume;
    if (current.cp === this.#settledCp && base.id === this.#standsOn?.id) return false;
    return showsChanges(volume, [base, current], { ignored: isMirrorSnapshot });
  }

  #marksAt(volume: Volume, writer: Writer): Marks {
    if (this.#marks === undefined || this.#marked !== writer) {
      this.#forget();
      this.#marks = new Marks(volume.plane(volume.current).pageCount);
      this.#marked = writer;
      writer.space.marks.add(this.#marks);
    }
    return this.#marks;
  }

  /** Nothing is marked any more. */
  #forget(): void {
    if (this.#marks !== undefined) this.#marked?.space.marks.delete(this.#marks);
    this.#marks = undefined;
    this.#image = undefined;
  }

  #imageOf(volume: Volume, top: Snapshot, base?: Snapshot): Image {
    const known = this.#image;
    if (known !== undefined && known.top.id === top.id && known.base?.id === base?.id) return known;
    const change = base === undefined ? undefined : this.#changeOf(volume, top, base);
    return this.#image = Image.between(volume, top, base, change);
  }

  /** What leads from base to top: from the marks, which are rebuilt where they do not know it. */
  #changeOf(volume: Volume, top: Snapshot, base: Snapshot): ReturnType<Marks["between"]> {
    const marks = this.#marks;
    if (marks === undefined || marks.since !== top.id) return undefined;
    if (marks.between(base.id, top.id) === undefined) {
      const end = (snapshot: Snapshot) => ({ id: snapshot.id, plane: volume.plane(snapshot) });
      marks.rebuild(end(base), end(top));
    }
    return marks.between(base.id, top.id);
  }

  async #send(volume: Volume, image: Image, signal?: AbortSignal): Promise<void> {
    this.#enter("sending");
    const top = image.top.id;
    await this.#standby.take(image, {
      epoch: volume.root.epoch,
      ...(signal === undefined ? {} : { signal }),
      progress: (done, total) => {
        this.#alive();
        this.#transfer = { top, done, total };
      },
      ...(this.#isBeginning ? { landed: () => this.#landed(volume, image.top) } : {}),
    });
  }

  /** The whole of a first image is there: what it is of is kept from now on. */
  async #landed(volume: Volume, top: Snapshot): Promise<void> {
    this.#hasLanded = true;
    await this.#note(volume, top);
  }

  #enter(phase: MirrorPhase): void {
    this.#phase = phase;
    this.#since = Date.now();
    this.#alive();
  }

  #alive(): void {
    this.#aliveAt = performance.now();
  }

  #lagBlocks(): number | undefined {
    const volume = this.#source.volumeIfAny;
    if (this.#marks === undefined || this.#standsOn === undefined || volume === undefined) {
      return undefined;
    }
    // What mirrors themselves write is no lag.
    const settled = volume.superblock.cp === this.#settledCp && volume.dirtyBytes === 0;
    return settled ? 0 : this.#marks.waitingBlocks;
  }
}

function requireOrigin(volume: Volume, to: string): void {
  if (volume.role === "origin") return;
  throw new VolcastError(
    "read-only",
    `Cannot mirror to ${to}: this volume is a replica, and only an origin is mirrored`,
    "Let the other one follow it: volcast serve --parent",
  );
}

/** The two ends have one history. @throws {VolcastError} `diverged`. */
function checkSameHistory(
  volume: Volume,
  position: StandbyPosition,
  { name, beginAnew }: Standby,
): void {
  const refuse = (reason: string, hint: string): never => {
    throw new VolcastError("diverged", `Cannot mirror to ${name}: ${reason}`, beginAnew ?? hint);
  };
  const { volumeId, epoch, role } = position;
  if (volumeId !== undefined && volumeId !== volume.volumeId) {
    refuse(
      `it has volume ${volumeId}, this is volume ${volume.volumeId}`,
      "Check the URL, or give the standby another path",
    );
  }
  if (role === "origin") {
    refuse(
      "it is an origin now, with a history of its own",
      "If it was promoted, bring this volume back to what both have: volcast resync",
    );
  }
  if (epoch !== undefined && epoch > volume.root.epoch) {
    refuse(
      `it is in line of history ${epoch}, this volume in ${volume.root.epoch}: another node was promoted`,
      "Bring this volume back to what both have: volcast resync",
    );
  }
}

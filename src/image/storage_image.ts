/**
 * Storage images: which blocks an expression of snapshots selects, which snapshots they restore, and on
 * what. Reads planes only.
 *
 * Source: WO 00/07104, storage images by algebra of bit planes ("June5 + June4 - June3").
 *
 * With P the names of an expression E that have a positive sign and N those with a negative one:
 * - A *top* is a snapshot of P all of whose blocks are in E or in the planes of N.
 * - An *alternative* base is a snapshot of N that alone has what E lacks of every top (and is no top
 *   itself, if there are others); where there is none, all of N are *required*; where E lacks nothing, there is no base.
 * - Without a top, or with blocks that are in no top, E is a *fragment*: it restores nothing.
 *
 * @module
 */

import {
  BitPlane,
  difference,
  evaluate,
  excluded,
  type Expression,
  formatExpression,
  intersects,
  isEmpty,
  isWithin,
  operandsOfSum,
  parseExpression,
  type Plane,
  renamed,
  signsOf,
  sum,
  VolcastError,
} from "../core/mod.ts";
import { decodeSnapshots, INO, snapshotId, type TermRole } from "../format/mod.ts";
import { isShadow, readAll, type Snapshot, type Volume } from "../volume/mod.ts";
import { type Base, baseName, resolveBase, stateFor } from "./shadow_base.ts";

/** A snapshot besides an image's newest top and newest base. */
export interface ImageTerm {
  readonly role: TermRole;
  readonly snapshot: Snapshot;
}

/** What is sent where that is more, or known better, than `top - base`. */
export interface ImageParts {
  /** Blocks that are sent; by default those of the top that the base has not. */
  readonly plane?: Plane;
  /** Blocks that the base has and the top has not; none where only `plane` is given. */
  readonly deallocated?: Plane;
  /** Where the base is a shadow: the root as of which its plane is read. */
  readonly state?: Snapshot | undefined;
  /** Further tops and bases. */
  readonly terms?: readonly ImageTerm[];
  /** Whether it restores no snapshot. */
  readonly fragment?: boolean;
  /** Snapshots whose roots reach every block that is sent; by default all tops. */
  readonly reaching?: readonly Snapshot[];
  /** Where a walk from those may stop: nothing below is sent. By default the base's plane. */
  readonly excluded?: Plane;
  /** Snapshots whose planes are read; by default all that are named here. */
  readonly read?: readonly Snapshot[];
  /** The image by ids, as a query of its URL; absent in an image `top` or `top - base`. */
  readonly query?: { readonly name: "select" | "snapshots" | "blocks"; readonly value: string };
}

/** What an expression selects. */
export interface StorageImage extends ImageParts {
  /** The newest top; in a fragment the newest snapshot that is named. */
  readonly top: Snapshot;
  /** The newest base, absent where none is needed. */
  readonly base?: Snapshot;
}

/** An expression whose names were looked up. */
export interface ResolvedExpression {
  /** With ids for names. */
  readonly expression: Expression;
  /** The notation of that: equal for the same image at every node. */
  readonly text: string;
  /** By what stands in the text. */
  readonly snapshots: ReadonlyMap<string, Snapshot>;
  /** States of those that are shadows. */
  readonly states: ReadonlyMap<string, Snapshot>;
}

/**
 * Reads an expression and looks its names up.
 * @throws {VolcastError} `usage` for the text, `not-found` for a name in it.
 */
export function resolveExpression(volume: Volume, text: string): ResolvedExpression {
  const parsed = parseExpression(text);
  const { positive } = signsOf(parsed);
  const newest = byAge([...positive].map((name) => volume.resolve(name))).at(-1)!;
  const snapshots = new Map<string, Snapshot>();
  const states = new Map<string, Snapshot>();
  const expression = renamed(parsed, (name) => {
    // Only what is subtracted can be a shadow.
    const found: Base = positive.has(name)
      ? { base: volume.resolve(name) }
      : resolveBase(volume, name, newest);
    const ref = baseName(found.base, found.state);
    snapshots.set(ref, found.base);
    if (found.state !== undefined) states.set(ref, found.state);
    return ref;
  });
  return { expression, text: formatExpression(expression), snapshots, states };
}

/** What an expression selects. Costs O(pages of the planes that differ) where it has one base. */
export function selectImage(volume: Volume, resolved: ResolvedExpression): StorageImage {
  const { expression, text, snapshots, states } = resolved;
  const query = { name: "select", value: text } as const;
  const simple = sumOfTops(expression);
  if (simple !== undefined) {
    const tops = simple.tops.map((id) => snapshots.get(id)!);
    const base = simple.base === undefined ? undefined : snapshots.get(simple.base);
    const state = simple.base === undefined ? undefined : states.get(simple.base);
    return imageOfTops(volume, tops, { base, state }, query);
  }
  for (const ref of states.keys()) throw shadowAmongOthers(snapshots.get(ref)!);
  const planes = new Map([...snapshots].map(([id, snapshot]) => [id, volume.plane(snapshot)]));
  const planeOf = (id: string): Plane => planes.get(id)!;
  const plane = evaluate(expression, planeOf);
  const signs = signsOf(expression);
  const [positive, negative] = [signs.positive, signs.negative]
    .map((ids) => byAge([...ids].map((id) => snapshots.get(id)!)));
  const parts = {
    plane,
    reaching: positive,
    read: [...snapshots.values()],
    excluded: excluded(expression, planeOf) ?? new BitPlane(plane.pageCount),
    query,
  };
  const { tops, alternatives, required } = endsOf({ plane, positive, negative, planeOf });
  const isFragment = tops.length === 0 ||
    !isWithin(plane, sum(...tops.map(({ id }) => planeOf(id))));
  if (isFragment) {
    const top = positive.at(-1)!;
    const named = byAge([...snapshots.values()].filter(({ id }) => id !== top.id));
    return { ...parts, top, fragment: true, terms: termsOf("named", named) };
  }
  const top = tops.at(-1)!;
  const base = alternatives.at(-1) ?? required.at(-1);
  const terms = [
    ...termsOf("top", tops.slice(0, -1)),
    ...termsOf("alternative", alternatives.slice(0, -1)),
    ...termsOf("required", required.slice(0, -1)),
  ];
  const isPlain = terms.length === 0 &&
    (base === undefined || !intersects(plane, planeOf(base.id)));
  if (isPlain) return base === undefined ? { top } : { top, base };
  return { ...parts, ...(base === undefined ? {} : { base }), top, terms };
}

interface OptionalBase {
  readonly base?: Snapshot | undefined;
  readonly state?: Snapshot | undefined;
}

/** Further snapshots that travel along with a top: a copy that keeps history. */
export interface HistoryRequest {
  /** `all`, or names with commas between. */
  readonly snapshots: string;
  /** By default the newest of them. */
  readonly top?: Snapshot | undefined;
  /** They are all newer than it. It may be a shadow. */
  readonly base?: Snapshot | undefined;
  /** Of a shadow: the root as of which its plane is read. By default what the top asks for. */
  readonly state?: Snapshot | undefined;
}

/**
 * The image of a top with all snapshots, or some, between it and the base.
 * @throws {VolcastError} `not-found`; `usage` when one that is named is not between them.
 */
export function selectHistory(volume: Volume, request: HistoryRequest): StorageImage {
  const { base } = request;
  const after = base?.cp ?? 0;
  if (request.snapshots === "all") {
    const listed = volume.snapshots();
    const top = request.top ?? listed.at(-1);
    if (top === undefined) throw nothingPublished();
    // Who has the top looks them up in its table.
    const known = new Set(tableOf(volume, top).map(({ id }) => id));
    const others = listed.filter(({ cp, id }) => cp > after && known.has(id));
    return imageWithHistory(volume, [...others, top], request);
  }
  const named = request.snapshots.split(",").map((name) => volume.resolve(name));
  const top = request.top ?? byAge(named).at(-1)!;
  for (const { name, cp } of named) {
    if (cp > after && cp <= top.cp) continue;
    throw new VolcastError(
      "usage",
      cp > top.cp
        ? `Cannot send '${name}' along: it is newer than '${top.name}'`
        : `Cannot send '${name}' along: it is not newer than the base '${base!.name}'`,
      "Name snapshots between the two, or say: all",
    );
  }
  return imageWithHistory(volume, [...named, top], request);
}

/**
 * The image of a top and of others that the top's own table of snapshots lists, by ranges of their
 * consistency points: `4..9,12`. That table is the same at every node, so the image is, too.
 * @throws {VolcastError} `usage`; `not-found` when one of them is not here.
 */
export function selectRanges(
  volume: Volume,
  request: Omit<HistoryRequest, "snapshots"> & { ranges: string; top: Snapshot },
): StorageImage {
  const { ranges, top } = request;
  const table = tableOf(volume, top);
  const here = new Map(volume.snapshots().map((snapshot) => [snapshot.id, snapshot]));
  let before = 0;
  const others = ranges.split(",").flatMap((range) => {
    const [first, last = first] = /^\d+(\.\.\d+)?$/.test(range)
      ? range.split("..").map(Number)
      : [];
    const wanted = table.filter(({ cp }) => cp >= first && cp <= last);
    const isInOrder = first > before;
    before = last;
    if (isInOrder && wanted.length > 0) return wanted;
    throw new VolcastError(
      "usage",
      `Cannot use the snapshots '${range}': they are no range of those that '${top.name}' lists`,
      "Take the URL from content-location of GET /replicate",
    );
  });
  return imageWithHistory(volume, [
    ...others.map(({ id }) => here.get(id) ?? volume.resolve(id)),
    top,
  ], request);
}

/** The error of whoever asks for an image where there is no snapshot. */
export function nothingPublished(): VolcastError {
  return new VolcastError(
    "not-found",
    "Cannot make an image: nothing has been published yet",
    "Publish first: volcast publish VOLUME DIR --as NAME",
  );
}

function imageWithHistory(
  volume: Volume,
  tops: readonly Snapshot[],
  { base, state: given }: OptionalBase,
): StorageImage {
  const newest = byAge(tops).at(-1)!;
  const ids = [...new Set(byAge(tops).map(({ id }) => id))];
  const ranges = rangesOf(volume, newest, ids.slice(0, -1));
  const state = base !== undefined && isShadow(base)
    ? given ?? stateFor(volume, base, newest)
    : undefined;
  const sumOfIds = ids.join(" + ");
  const text = base === undefined ? sumOfIds : `${sumOfIds} - ${baseName(base, state)}`;
  const query = ranges === undefined
    ? { name: "select", value: text } as const
    : { name: "snapshots", value: ranges } as const;
  return imageOfTops(volume, tops, { base, state }, query);
}

/** Snapshots as ranges over the table of a top, `undefined` when it does not list them all. */
function rangesOf(volume: Volume, top: Snapshot, ids: readonly string[]): string | undefined {
  const wanted = new Set(ids);
  const ranges: { first: number; last: number }[] = [];
  let open: { first: number; last: number } | undefined;
  for (const { cp, id } of tableOf(volume, top)) {
    if (!wanted.delete(id)) open = undefined;
    else if (open !== undefined) open.last = cp;
    else ranges.push(open = { first: cp, last: cp });
  }
  if (wanted.size > 0) return undefined;
  return ranges.map(({ first, last }) => first === last ? `${first}` : `${first}..${last}`)
    .join(",");
}

/** The snapshots that a snapshot lists, whether they are here or not. */
function tableOf(volume: Volume, top: Snapshot): { cp: number; id: string }[] {
  return decodeSnapshots(readAll(volume.fileSystem(top), INO.snapshots))
    .map((record) => ({ cp: record.cp, id: snapshotId(record) }));
}

/** The image of all of `tops`, without what the base has. */
function imageOfTops(
  volume: Volume,
  snapshots: readonly Snapshot[],
  { base, state }: OptionalBase,
  query: NonNullable<ImageParts["query"]>,
): StorageImage {
  const unique = byAge([...new Map(snapshots.map((one) => [one.id, one])).values()]);
  // Who has the base has it as a snapshot.
  const isBase = ({ id }: Snapshot) => id === base?.id;
  const tops = unique.every(isBase) ? unique : unique.filter((one) => !isBase(one));
  const top = tops.at(-1)!;
  const ends = base === undefined ? { top } : { top, base, state };
  if (tops.length === 1) return ends;
  const all = sum(...tops.map((one) => volume.plane(one)));
  return {
    ...ends,
    plane: base === undefined ? all : difference(all, planeOfBase(volume, { base, state })),
    terms: termsOf("top", tops.slice(0, -1)),
    query,
  };
}

/** The plane of a base: of a shadow as of its state, of one that is not here as it was brought. */
export function planeOfBase(
  volume: Volume,
  { base, state }: { base: Snapshot; state?: Snapshot | undefined },
): Plane {
  if (state !== undefined) return volume.shadowPlane(base.id, state);
  return volume.lent.plane(base.id) ?? volume.plane(base);
}

function shadowAmongOthers({ name }: Snapshot): VolcastError {
  return new VolcastError(
    "unsupported",
    `Cannot use the shadow '${name}' here: it can only be the one base of a sum of snapshots`,
    `Write for example: june9 + june8 - ${name}`,
  );
}

/** `a + b + c` or `a + b + c - d`: all that is restored, and on what, is plain to see. */
function sumOfTops(expression: Expression): { tops: string[]; base?: string } | undefined {
  const { kind } = expression;
  const isIncrement = kind === "-" && expression.right.kind === "name";
  const names = operandsOfSum(isIncrement ? expression.left : expression)
    .map((operand) => operand.kind === "name" ? operand.name : "");
  if (names.includes("")) return undefined;
  return isIncrement && expression.right.kind === "name"
    ? { tops: names, base: expression.right.name }
    : { tops: names };
}

/** Tops and bases from planes alone. */
function endsOf(
  { plane, positive, negative, planeOf }: {
    plane: Plane;
    positive: readonly Snapshot[];
    negative: readonly Snapshot[];
    planeOf: (id: string) => Plane;
  },
): { tops: Snapshot[]; alternatives: Snapshot[]; required: Snapshot[] } {
  // What a snapshot has and neither a base nor the image: pages that are equal are not looked at.
  const lacks = (top: Snapshot, base: Plane) =>
    !isEmpty(difference(difference(planeOf(top.id), base), plane));
  const planesOfBases = negative.map(({ id }) => planeOf(id));
  const allBases = negative.length === 0 ? new BitPlane(plane.pageCount) : sum(...planesOfBases);
  const tops = positive.filter((top) =>
    planesOfBases.some((base) => !lacks(top, base)) || !lacks(top, allBases)
  );
  const isWhole = tops.every(({ id }) => isWithin(planeOf(id), plane));
  if (isWhole) return { tops, alternatives: [], required: [] };
  const isEnough = ({ id }: Snapshot) => tops.every((top) => !lacks(top, planeOf(id)));
  const isTop = ({ id }: Snapshot) => tops.some((top) => top.id === id);
  const enough = negative.filter(isEnough);
  const others = enough.filter((base) => !isTop(base));
  const alternatives = others.length > 0 ? others : enough;
  return { tops, alternatives, required: alternatives.length === 0 ? [...negative] : [] };
}

function byAge(snapshots: readonly Snapshot[]): Snapshot[] {
  return [...snapshots].sort((a, b) => a.cp - b.cp);
}

function termsOf(role: TermRole, snapshots: readonly Snapshot[]): ImageTerm[] {
  return snapshots.map((snapshot) => ({ role, snapshot }));
}

/**
 * Stores by the path that a user gives: a plain file or a block device, a packed file, or the members
 * of a stripe, as `a.vol,b.vol,c.vol` or by the path of any one of them.
 *
 * A stripe whose members are about to take the names of older ones (`NAME.incoming` to `NAME`) may be
 * found between two of those renames after a crash. Only a complete stripe is renamed, so opening it
 * finishes what was begun.
 *
 * @module
 */

import { damaged, messageOf, VolcastError } from "../core/mod.ts";
import { bytesToHex, memberBlocksOf, STRIPE_MEMBERS, type StripeHeader } from "../format/mod.ts";
import { isAbsolute, join } from "node:path";
import type { BlockStore } from "./block_store.ts";
import { deniedError, FileStore, type FileStoreOptions } from "./file_store.ts";
import { isPacked, readPackedHeader } from "./map_log.ts";
import { packedLimit, PackedStore } from "./packed_store.ts";
import { readStripeHeader, StripedStore } from "./striped_store.ts";

/** How a volume lies in its files. */
export type StoreKind = "plain" | "packed" | "striped";

/** What is behind a path. */
export interface StoreFiles {
  readonly kind: StoreKind;
  /** All files, in order; one unless it is striped. */
  readonly files: readonly string[];
}

/** What the names of files end in that are to take the place of others. */
export const INCOMING = ".incoming";

/** Whether something has this path; of a stripe, whether one of its members is there. */
export function exists(path: string): boolean {
  return hasPath(path) || (isList(path) && path.split(",").some(hasPath));
}

/** Looks what is behind a path, without its lock. What cannot be read counts as plain. */
export function storeFiles(path: string): StoreFiles {
  if (!hasPath(path) && isList(path)) return { kind: "striped", files: path.split(",") };
  const found = peeked(path, (store) => {
    const header = readStripeHeader(store);
    if (header !== undefined) return { kind: "striped" as const, files: neighbours(path, header) };
    return isPacked(store) ? { kind: "packed" as const, files: [path] } : undefined;
  });
  return found ?? { kind: "plain", files: [path] };
}

/**
 * Opens what is behind a path and takes its locks.
 *
 * @param options.orReadOnly As in {@linkcode FileStoreOptions}.
 * @throws {VolcastError} As {@linkcode FileStore.open}; `damaged`, naming what is wrong with a member.
 */
export function openStore(
  path: string,
  options: Pick<FileStoreOptions, "orReadOnly"> = {},
): BlockStore {
  const { kind, files } = storeFiles(path);
  if (kind === "striped") return openStripe(files, path, options);
  if (kind === "plain") return FileStore.open(path, options);
  const most = packedLimit(
    peeked(path, (store) => readPackedHeader(store, Infinity).capacity) ?? 0,
  );
  const file = FileStore.open(path, { ...options, most });
  return closingOnError([file], () => PackedStore.open(file, file.initialBlocks));
}

/** Opens what is behind a path only to look at it, past its locks. It must not be written. */
export function peekStore(path: string): BlockStore {
  const { kind, files } = storeFiles(path);
  const stores: FileStore[] = [];
  return closingOnError(stores, () => {
    for (const file of files) stores.push(FileStore.peek(file));
    if (kind === "striped") return StripedStore.open(stores, files);
    return kind === "packed" ? PackedStore.open(stores[0]) : stores[0];
  });
}

/**
 * Makes new files for `capacity` blocks, and fails when there is one.
 *
 * @param suffix What the names of the files end in besides; members of a stripe know each other without.
 * @throws {VolcastError} `exists`, `denied`, `usage`, `io`. No file is left behind then.
 */
export function createStore(
  { kind, files }: StoreFiles,
  capacity: number,
  suffix = "",
): BlockStore {
  const made: FileStore[] = [];
  const make = (file: string, options: FileStoreOptions) => {
    const store = FileStore.open(file + suffix, { ...options, create: true });
    made.push(store);
    return store;
  };
  try {
    if (kind === "plain") return make(files[0], { capacity });
    if (kind === "packed") {
      return PackedStore.create(make(files[0], { most: packedLimit(capacity) }), capacity);
    }
    checkList(files);
    const memberBlocks = memberBlocksOf(capacity, files.length);
    const members = files.map((file) => make(file, { capacity: memberBlocks, parallel: true }));
    const stripeId = bytesToHex(crypto.getRandomValues(new Uint8Array(16)));
    return StripedStore.create(members, { capacity, names: namesOf(files), stripeId });
  } catch (error) {
    for (const store of made) {
      store.close();
      Deno.removeSync(store.path);
    }
    throw error;
  }
}

/** Removes the files of a store. Those that are gone already are no error. */
export function removeFiles(files: readonly string[]): void {
  for (const file of files) if (hasPath(file)) Deno.removeSync(file);
}

/** Gives files that end in {@linkcode INCOMING} the names they were made for, one after the other. */
export function adoptFiles(files: readonly string[]): void {
  // With the first rename the older volume is gone: by then every member must have a name for good.
  if (files.length > 1) syncNames(files);
  for (const file of files) Deno.renameSync(file + INCOMING, file);
  syncNames(files);
}

/** Makes the names of files durable: a new name is only when the directory that has it is. */
export function syncNames(files: readonly string[]): void {
  for (const folder of new Set(files.map(directoryOf))) FileStore.syncDirectory(folder);
}

function openStripe(
  files: readonly string[],
  path: string,
  options: Pick<FileStoreOptions, "orReadOnly">,
): StripedStore {
  checkList(files);
  finishAdoption(files);
  const members: FileStore[] = [];
  return closingOnError(members, () => {
    for (const [i, file] of files.entries()) {
      members.push(openMember(file, { i, files, path, ...options }));
    }
    return StripedStore.open(members, files);
  });
}

function openMember(
  file: string,
  { i, files, path, orReadOnly = false }: {
    i: number;
    files: readonly string[];
    path: string;
    orReadOnly?: boolean;
  },
): FileStore {
  try {
    return FileStore.open(file, { parallel: true, orReadOnly });
  } catch (error) {
    if (!(error instanceof VolcastError) || error.kind !== "not-found") throw error;
    throw new VolcastError(
      "not-found",
      `Cannot open ${path}: member ${i + 1} of ${files.length}, ${file}, is not there`,
      "Put it back, or name all members: a.vol,b.vol,c.vol",
    );
  }
}

/** Goes on with the renames of a complete stripe, if some members have their names and some have not. */
function finishAdoption(files: readonly string[]): void {
  const headers = files.map(headerOf);
  const ids = new Set(headers.map((header) => header?.stripeId));
  if (ids.size === 1) return;
  for (const id of ids) {
    const isIts = (header: StripeHeader | undefined, i: number) =>
      header !== undefined && header.stripeId === id && header.index === i;
    const waiting = files.filter((_, i) => !isIts(headers[i], i));
    const isWhole = files.every((file, i) =>
      isIts(headers[i], i) || isIts(headerOf(file + INCOMING), i)
    );
    if (id === undefined || !isWhole) continue;
    // Somebody may be at it just now: then one of them is locked.
    for (const file of waiting) FileStore.open(file + INCOMING).close();
    adoptFiles(waiting);
    return;
  }
}

function headerOf(file: string): StripeHeader | undefined {
  return peeked(file, readStripeHeader);
}

/** The files of a stripe, from the path of one of them. */
function neighbours(path: string, { names }: StripeHeader): string[] {
  return names.map((name) => isAbsolute(name) ? name : join(directoryOf(path), name));
}

/** What members know each other by: names within their directory, or where there are several, paths. */
function namesOf(files: readonly string[]): string[] {
  const isOne = new Set(files.map(directoryOf)).size === 1;
  return files.map((file) =>
    isOne ? file.slice(file.lastIndexOf("/") + 1) : isAbsolute(file) ? file : join(Deno.cwd(), file)
  );
}

function checkList(files: readonly string[]): void {
  const { least, most } = STRIPE_MEMBERS;
  const problem = files.length < least || files.length > most
    ? `${files.length} members are given, the least is ${least}, the most ${most}`
    : files.includes("")
    ? "a member has no name"
    : new Set(files).size < files.length
    ? "a member is given twice"
    : undefined;
  if (problem === undefined) return;
  throw new VolcastError(
    "usage",
    `Cannot use the striped volume ${files.join(",")}: ${problem}`,
    "Write its members with commas between: a.vol,b.vol,c.vol",
  );
}

function isList(path: string): boolean {
  return path.includes(",");
}

function directoryOf(file: string): string {
  const slash = file.lastIndexOf("/");
  return slash < 0 ? "." : file.slice(0, slash) || "/";
}

function hasPath(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw deniedError(`Cannot look at ${path}`, error) ??
      new VolcastError("io", `Cannot look at ${path}: ${messageOf(error)}`);
  }
}

/** What `look` finds in a file; `undefined` where the file cannot be opened: opening it will tell why. */
function peeked<T>(file: string, look: (store: FileStore) => T): T | undefined {
  let store: FileStore;
  try {
    store = FileStore.peek(file);
  } catch {
    return undefined;
  }
  try {
    return look(store);
  } catch (error) {
    if (error instanceof VolcastError && error.kind !== "io") throw inFile(file, error);
    return undefined;
  } finally {
    store.close();
  }
}

function inFile(file: string, error: VolcastError): VolcastError {
  const message = error.message.replace(/^Cannot (open|read) the [^:]*/, `Cannot open ${file}`);
  return error.kind === "damaged"
    ? damaged(message, error.hint)
    : new VolcastError(error.kind, message, error.hint);
}

function closingOnError<T>(stores: readonly BlockStore[], work: () => T): T {
  try {
    return work();
  } catch (error) {
    for (const store of stores) store.close();
    throw error;
  }
}

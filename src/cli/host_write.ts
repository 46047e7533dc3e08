/**
 * Writing entries into a directory of the host.
 *
 * What the host's interface does not take (extended attributes, devices, fifos, sockets, times finer
 * than a millisecond) is counted; a tar archive carries all of it.
 *
 * Invariants:
 * 1. Nothing is written through a symbolic link: every directory on the way was made, or seen to be
 *    a directory, by this very run.
 * 2. A file that was there is replaced by renaming a complete one over it.
 * 3. Permissions that could be misused (set-user-ID) are set after the owner, and directories get
 *    theirs, and their times, when everything below is written.
 *
 * @module
 */

import { lchownSync, lutimesSync } from "node:fs";
import { checkEntryPath, quote, SkipList, splitPath, type TreeEntry } from "../archive/mod.ts";
import { VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, isZeroBlock } from "../format/mod.ts";
import { hostError } from "../store/mod.ts";
import { reasonOf } from "./host_read.ts";

const NS_PER_MS = 1_000_000n;

/** What was written, and what the host did not take. */
export interface ExportReport {
  files: number;
  directories: number;
  symlinks: number;
  hardLinks: number;
  bytesWritten: number;
  /** Devices, fifos and sockets, which cannot be made here. */
  notMade: number;
  /** Entries whose owner could not be set for want of rights. */
  ownersLost: number;
  /** Entries with extended attributes, DOS bits or a security descriptor, which were not written. */
  attributesLost: number;
  /** The entries of `notMade`, the first hundred. */
  skipped: SkipList;
}

/**
 * Writes a tree into a directory of the host.
 *
 * @param entries Parents before their children.
 * @param options.overwrite Writes into a directory that is not empty, over what has the same names;
 *   what has other names stays.
 * @param options.progress Called now and then with entries and bytes.
 * @throws {VolcastError} `exists` when the directory is not empty, `usage` for paths that lead out of
 *   it, `full`, `denied`, `io`.
 */
export async function writeHostTree(
  entries: AsyncIterable<TreeEntry> | Iterable<TreeEntry>,
  directory: string,
  options: { overwrite?: boolean; progress?: (entries: number, bytes: number) => void } = {},
): Promise<ExportReport> {
  const writer = new HostWriter(directory, options.overwrite ?? false);
  let count = 0;
  const take = (entry: TreeEntry): Promise<void> | undefined => {
    if (++count % 256 === 0) options.progress?.(count, writer.report.bytesWritten);
    return writer.take(entry);
  };
  // What is here is not waited for: see HostWriter.#file.
  if (Symbol.iterator in entries) {
    for (const entry of entries) {
      const pending = take(entry);
      if (pending !== undefined) await pending;
    }
  } else for await (const entry of entries) await take(entry);
  writer.finish();
  return writer.report;
}

/** Whom new files belong to, and which permission bits they lose. */
interface Own {
  readonly uid: number;
  readonly gid: number;
  readonly umask: number;
}

class HostWriter {
  readonly report: ExportReport = {
    files: 0,
    directories: 0,
    symlinks: 0,
    hardLinks: 0,
    bytesWritten: 0,
    notMade: 0,
    ownersLost: 0,
    attributesLost: 0,
    skipped: new SkipList(),
  };
  readonly #top: string;
  readonly #overwrite: boolean;
  readonly #own: Own;
  /** Directories of this run, in the order they came. */
  readonly #directories = new Map<string, TreeEntry | undefined>();
  readonly #notMade = new Set<string>();
  #temporary = 0;

  constructor(top: string, overwrite: boolean) {
    this.#top = top;
    this.#overwrite = overwrite;
    makeTop(top, overwrite);
    this.#own = probe(top);
    this.#directories.set("", undefined);
  }

  /** Writes an entry; a promise where its content is still to come. */
  take(entry: TreeEntry): Promise<void> | undefined {
    const named = (error: unknown): never => {
      throw writeError(entry.path, error);
    };
    try {
      return this.#take(entry)?.catch(named);
    } catch (error) {
      named(error);
    }
  }

  #take(entry: TreeEntry): Promise<void> | undefined {
    const { parent, name } = splitPath(entry.path);
    const isKnown = this.#directories.has(parent);
    // The path of a directory that is known was checked when it came.
    const isBelow = isKnown && parent !== "" && name !== "";
    checkEntryPath(isBelow ? name : entry.path);
    if (!isKnown) {
      throw new VolcastError("usage", `its directory did not come before it`);
    }
    if (entry.path === "" && (entry.type !== "directory" || entry.linkTo !== undefined)) {
      throw new VolcastError("usage", `the top of a tree is a directory, it is a ${entry.type}`);
    }
    this.#countLost(entry);
    if (entry.linkTo !== undefined) return this.#hardLink(entry, entry.linkTo);
    switch (entry.type) {
      case "directory":
        return this.#directory(entry);
      case "file":
        return this.#file(entry);
      case "symlink":
        return this.#symlink(entry);
      default:
        this.report.notMade++;
        this.#notMade.add(entry.path);
        this.report.skipped.add(entry.path, `the host interface cannot make a ${entry.type}`);
    }
  }

  /** Gives directories what their children would have changed, the deepest first. */
  finish(): void {
    for (const [path, entry] of [...this.#directories].reverse()) {
      if (entry === undefined) continue;
      try {
        const hostPath = this.#hostPath(path);
        this.#chown(hostPath, entry);
        Deno.chmodSync(hostPath, entry.permissions);
        Deno.utimeSync(hostPath, dateOf(entry.atime ?? entry.mtime), dateOf(entry.mtime));
      } catch (error) {
        throw writeError(path, error);
      }
    }
  }

  #hostPath(path: string): string {
    return path === "" ? this.#top : `${this.#top}/${path}`;
  }

  #directory(entry: TreeEntry): undefined {
    if (!this.#directories.has(entry.path)) {
      const hostPath = this.#hostPath(entry.path);
      const present = this.#overwrite ? lstat(hostPath) : undefined;
      if (present !== undefined && !present.isDirectory) Deno.removeSync(hostPath);
      if (!present?.isDirectory) Deno.mkdirSync(hostPath, { mode: 0o700 });
    }
    const { read: _, attributes: __, ...kept } = entry;
    this.#directories.set(entry.path, kept);
    this.report.directories++;
  }

  /** Content that is here is written at once: a promise for each file takes longer than most files. */
  #file(entry: TreeEntry): Promise<void> | undefined {
    const file = this.#newFile(entry);
    try {
      const content = entry.read?.() ?? [];
      if (!(Symbol.iterator in content)) return this.#fileAsItComes(file, entry, content);
      for (const chunk of content) file.write(chunk);
      this.#complete(file, entry);
    } catch (error) {
      file.discard();
      throw error;
    }
  }

  async #fileAsItComes(file: NewFile, entry: TreeEntry, content: AsyncIterable<Uint8Array>) {
    try {
      for await (const chunk of content) file.write(chunk);
      this.#complete(file, entry);
    } catch (error) {
      file.discard();
      throw error;
    }
  }

  #newFile(entry: TreeEntry): NewFile {
    const hostPath = this.#hostPath(entry.path);
    const path = this.#overwrite ? this.#temporaryPath(entry.path) : hostPath;
    // Set-user-ID and the like only when the owner is right.
    return new NewFile(path, entry.permissions & 0o777);
  }

  #complete(file: NewFile, entry: TreeEntry): void {
    file.finish(entry.size);
    const chowned = this.#chown(file.path, entry);
    if (chowned || entry.permissions !== (file.mode & ~this.#own.umask)) {
      Deno.chmodSync(file.path, entry.permissions);
    }
    file.close(entry.atime ?? entry.mtime, entry.mtime);
    if (this.#overwrite) this.#moveInto(file.path, entry.path);
    this.report.files++;
    this.report.bytesWritten += entry.size;
  }

  #symlink(entry: TreeEntry): undefined {
    const hostPath = this.#hostPath(entry.path);
    const path = this.#overwrite ? this.#temporaryPath(entry.path) : hostPath;
    Deno.symlinkSync(entry.target ?? "", path);
    this.#chown(path, entry);
    lutimesSync(path, secondsOf(entry.atime ?? entry.mtime), secondsOf(entry.mtime));
    if (path !== hostPath) this.#moveInto(path, entry.path);
    this.report.symlinks++;
  }

  #hardLink(entry: TreeEntry, linkTo: string): undefined {
    if (this.#notMade.has(linkTo)) {
      this.#notMade.add(entry.path);
      this.report.notMade++;
      this.report.skipped.add(entry.path, `it is a name of ${quote(linkTo)}, which was not made`);
      return;
    }
    checkEntryPath(linkTo);
    if (!this.#directories.has(splitPath(linkTo).parent)) {
      throw new VolcastError("usage", `it links to ${quote(linkTo)}, which did not come before it`);
    }
    const hostPath = this.#hostPath(entry.path);
    const path = this.#overwrite ? this.#temporaryPath(entry.path) : hostPath;
    Deno.linkSync(this.#hostPath(linkTo), path);
    if (path !== hostPath) {
      this.#moveInto(path, entry.path);
      // Renaming one name of a file over another of the same does nothing.
      if (lstat(path) !== undefined) Deno.removeSync(path);
    }
    this.report.hardLinks++;
  }

  /** Puts a complete file in the place of whatever has its name. */
  #moveInto(temporary: string, path: string): void {
    const hostPath = this.#hostPath(path);
    if (lstat(hostPath)?.isDirectory) {
      Deno.removeSync(hostPath, { recursive: true });
      // Whatever has this name now is no directory of this run any more (invariant 1).
      for (const known of [...this.#directories.keys()]) {
        if (known === path || known.startsWith(`${path}/`)) this.#directories.delete(known);
      }
    }
    Deno.renameSync(temporary, hostPath);
  }

  #temporaryPath(path: string): string {
    const { parent } = splitPath(path);
    return `${this.#hostPath(parent)}/.volcast-${Deno.pid}-${this.#temporary++}`;
  }

  /** @returns Whether the owner was changed. */
  #chown(hostPath: string, entry: TreeEntry): boolean {
    // What lies in directories that were here before may get their group.
    const isOwn = entry.uid === this.#own.uid && entry.gid === this.#own.gid;
    if (isOwn && !this.#overwrite) return false;
    if (this.#own.uid !== 0) {
      if (!isOwn) this.report.ownersLost++;
      return false;
    }
    lchownSync(hostPath, entry.uid, entry.gid);
    return true;
  }

  #countLost({ linkTo, attributes, dos }: TreeEntry): void {
    const some = (attributes?.xattrs.size ?? 0) > 0 || attributes?.securityDescriptor !== undefined;
    if (linkTo === undefined && (some || dos)) this.report.attributesLost++;
  }
}

function makeTop(top: string, overwrite: boolean): void {
  try {
    Deno.mkdirSync(top, { recursive: true });
    if (overwrite) return;
    for (const _ of Deno.readDirSync(top)) {
      throw new VolcastError(
        "exists",
        `Cannot export into ${top}: it is not empty`,
        "Choose an empty directory, or add --overwrite",
      );
    }
  } catch (error) {
    if (error instanceof VolcastError) throw error;
    throw new VolcastError("io", `Cannot export into ${top}: ${reasonOf(error)}`, "", {
      cause: error,
    });
  }
}

/** Makes a file to see whom it belongs to: asking for user and umask needs wider permissions. */
function probe(top: string): Own {
  const path = `${top}/.volcast-${Deno.pid}-probe`;
  try {
    Deno.openSync(path, { write: true, createNew: true, mode: 0o777 }).close();
    const { uid, gid, mode } = Deno.lstatSync(path);
    Deno.removeSync(path);
    return { uid: uid ?? 0, gid: gid ?? 0, umask: ~(mode ?? 0o777) & 0o777 };
  } catch (error) {
    throw new VolcastError("denied", `Cannot export into ${top}: ${reasonOf(error)}`);
  }
}

/** A file that is being written. */
class NewFile {
  readonly path: string;
  /** Permissions it was made with, before the umask. */
  readonly mode: number;
  readonly #file: Deno.FsFile;
  #size = 0;
  #endsInHole = false;

  constructor(path: string, mode: number) {
    this.path = path;
    this.mode = mode;
    this.#file = Deno.openSync(path, { write: true, createNew: true, mode });
  }

  write(chunk: Uint8Array): void {
    if (chunk.length < BLOCK_SIZE) {
      writeAll(this.#file, chunk);
      this.#endsInHole = false;
    } else this.#endsInHole = writeSparsely(this.#file, chunk);
    this.#size += chunk.length;
  }

  /** Ends the content. @throws {VolcastError} `damaged` when it is not as long as was announced. */
  finish(size: number): void {
    if (this.#endsInHole) this.#file.truncateSync(this.#size);
    if (this.#size === size) return;
    throw new VolcastError("damaged", `${this.#size} bytes came, ${size} were announced`);
  }

  /** Sets the times, the last thing that happens to it. */
  close(atime: bigint, mtime: bigint): void {
    this.#file.utimeSync(dateOf(atime), dateOf(mtime));
    this.#file.close();
  }

  /** Leaves nothing of it. */
  discard(): void {
    closeQuietly(this.#file);
    Deno.removeSync(this.path);
  }
}

/** Writes a chunk without its zero blocks. @returns Whether it ends with one. */
function writeSparsely(file: Deno.FsFile, chunk: Uint8Array): boolean {
  const isHole = (at: number) => {
    const block = chunk.subarray(at, at + BLOCK_SIZE);
    return block.length === BLOCK_SIZE && isZeroBlock(block);
  };
  let at = 0;
  let hole = false;
  while (at < chunk.length) {
    hole = isHole(at);
    let end = at + BLOCK_SIZE;
    while (end < chunk.length && isHole(end) === hole) end += BLOCK_SIZE;
    end = Math.min(end, chunk.length);
    if (hole) file.seekSync(end - at, Deno.SeekMode.Current);
    else writeAll(file, chunk.subarray(at, end));
    at = end;
  }
  return hole;
}

function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
}

function closeQuietly(file: Deno.FsFile): void {
  try {
    file.close();
  } catch {
    // It was closed already.
  }
}

function lstat(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function dateOf(ns: bigint): Date {
  return new Date(Number(ns / NS_PER_MS));
}

function secondsOf(ns: bigint): number {
  return Number(ns / NS_PER_MS) / 1000;
}

function writeError(path: string, error: unknown): VolcastError {
  const what = `Cannot write ${quote(path)}`;
  if (error instanceof VolcastError) {
    if (error.message.startsWith("Cannot ")) return error;
    return new VolcastError(error.kind, `${what}: ${error.message}`, error.hint, { cause: error });
  }
  return hostError(what, error);
}

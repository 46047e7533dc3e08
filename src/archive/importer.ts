/**
 * Bringing a tree of entries into a volume so that as little as possible changes there.
 *
 * Invariants:
 * 1. A file whose type, size and mtime are as the entry says is not read (unless asked for), and
 *    where its attributes are equal too its inode does not become dirty. Times of access and of
 *    creation make no difference by themselves; they are set along with something else.
 * 2. Content that differs is written in place, from the first difference on, so that equal blocks
 *    keep their places. A file with several names is never written in place: the name at hand
 *    leaves it for a file of its own, since the other names may still stand for the old content.
 * 3. An inode is claimed by the first name that the tree gives it. Another name stays a name of it
 *    only where the tree says so; where it does not, that name gets a file of its own.
 * 4. Nothing is looked up through symbolic links, so nothing outside of the top is touched.
 * 5. Pruning removes exactly the names below the top that the tree did not have.
 *
 * In memory stay: a bit for each inode, the attributes of directories until their children are all
 * there, and the names of files that have several.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import {
  type Attributes,
  encodeAttributes,
  equalBytes,
  INO,
  type Inode,
  type TypeName,
} from "../format/mod.ts";
import {
  type DirectoryEntry,
  type LiveFileSystem,
  SeenDirectories,
  type Writer,
} from "../volume/mod.ts";
import { Claims } from "./claims.ts";
import type { ImportOptions, ImportReport } from "./import_report.ts";
import {
  checkEntryPath,
  CHUNK_BYTES,
  quote,
  SkipList,
  splitPath,
  type TreeEntry,
  UnreadableEntry,
} from "./entry.ts";

/** Entries between two looks at whether a consistency point is due. */
const CHECKPOINT_ENTRIES = 256;
/** Most paths of directories kept with their inode numbers. */
const MAX_KNOWN_DIRECTORIES = 16_384;

/**
 * Imports a tree. Nothing is durable before the caller's next consistency point; after an error the
 * active file system has a part of the tree, snapshots and pointers are as they were.
 *
 * @param entries Parents before their children, otherwise in any order.
 * @throws {VolcastError} Of the kind of its cause, naming the path; what `entries` throws.
 */
export async function importTree(
  writer: Writer,
  entries: AsyncIterable<TreeEntry> | Iterable<TreeEntry>,
  options: ImportOptions = {},
): Promise<ImportReport> {
  const run = new ImportRun(writer, options);
  let count = 0;
  for await (const entry of entries) {
    try {
      const pending = run.take(entry);
      if (pending !== undefined) await pending;
    } catch (error) {
      throw naming(entry.path, error);
    }
    if (++count % CHECKPOINT_ENTRIES === 0) {
      options.progress?.({ entries: count, bytes: run.report.bytesRead });
      await writer.checkpointIfDue();
    }
  }
  if (options.prune) await run.prune();
  await run.finish();
  return run.result();
}

type State = "created" | "changed" | "unchanged";

/** What is set on a directory when its children are there. */
interface PendingDirectory {
  readonly entry: TreeEntry;
  state: State;
}

class ImportRun {
  readonly report: ImportReport = {
    files: 0,
    directories: 0,
    symlinks: 0,
    hardLinks: 0,
    others: 0,
    bytesRead: 0,
    unchanged: 0,
    created: 0,
    changed: 0,
    removed: 0,
    skipped: [],
    skippedCount: 0,
  };
  readonly #writer: Writer;
  readonly #fs: LiveFileSystem;
  readonly #options: ImportOptions;
  readonly #top: number;
  readonly #skipped = new SkipList();
  /** Inode numbers of directories by path, as far as known. */
  readonly #known = new Map<string, number>();
  readonly #pending = new Map<number, PendingDirectory>();
  readonly #claims = new Claims();
  /** What the mtime of a file with several names was before this run. */
  readonly #mtimes = new Map<number, bigint>();
  readonly #scratch = new Uint8Array(CHUNK_BYTES);

  constructor(writer: Writer, options: ImportOptions) {
    this.#writer = writer;
    this.#fs = writer.fs;
    this.#options = options;
    this.#top = this.#makeTop(options.into ?? "");
  }

  /** Imports one entry. @returns A promise only where it has to wait. */
  take(entry: TreeEntry): Promise<void> | undefined {
    if (entry.path === "") {
      if (entry.type !== "directory") {
        throw new VolcastError("usage", "Cannot make the top of the tree: it is not a directory");
      }
      this.#directory(this.#top, "unchanged", entry);
      return;
    }
    const { parent, name } = this.#place(entry.path);
    if (entry.linkTo !== undefined) return this.#hardLink(parent, name, entry);
    if (entry.type === "file") return this.#file(parent, name, entry);
    if (entry.type !== "directory") return this.#special(parent, name, entry);
    const present = this.#findOfType(parent, name, "directory");
    const ino = present ?? this.#create(parent, name, entry);
    this.#remember(entry.path, ino);
    this.#directory(ino, present === undefined ? "created" : "unchanged", entry);
  }

  /** Removes what the tree did not have. */
  async prune(): Promise<void> {
    const stack = [this.#top];
    for (let directory = stack.pop(); directory !== undefined; directory = stack.pop()) {
      let last: string | undefined;
      for (;;) {
        const batch = take(this.#fs.list(directory, last), 1024);
        if (batch.length === 0) break;
        for (const entry of batch) {
          if (!this.#claims.isNamed(directory, entry)) this.#remove(directory, entry);
          else if (entry.type === "directory") stack.push(entry.ino);
        }
        last = batch[batch.length - 1].name;
        await this.#writer.checkpointIfDue();
      }
    }
  }

  /** Sets the attributes of directories, which their children changed. */
  async finish(): Promise<void> {
    let count = 0;
    for (const [ino, { entry, state }] of this.#pending) {
      try {
        const changed = this.#setAttributes(ino, entry);
        this.#count(state === "unchanged" && changed ? "changed" : state);
      } catch (error) {
        throw naming(entry.path, error);
      }
      if (++count % CHECKPOINT_ENTRIES === 0) await this.#writer.checkpointIfDue();
    }
  }

  result(): ImportReport {
    return {
      ...this.report,
      skipped: this.#skipped.items,
      skippedCount: this.#skipped.count,
    };
  }

  #makeTop(path: string): number {
    let ino: number = INO.root;
    const names = path.split("/").filter((name) => name !== "" && name !== ".");
    checkEntryPath(names.join("/"));
    for (const name of names) {
      const entry = this.#fs.directory(ino).find(name);
      if (entry !== undefined && entry.type !== "directory") {
        throw new VolcastError(
          "exists",
          `Cannot import into '${path}': '${name}' is not a directory`,
        );
      }
      ino = entry?.ino ??
        this.#fs.create(ino, name, { type: "directory", permissions: 0o755 });
    }
    return ino;
  }

  // --- places -----------------------------------------------------------------------------------

  /** The directory an entry belongs into. */
  #place(path: string): { parent: number; name: string } {
    const { parent, name } = splitPath(path);
    const known = parent !== "" ? this.#known.get(parent) : path === name ? this.#top : undefined;
    if (known !== undefined) {
      // The directory's own path was checked when it came.
      checkEntryPath(name === "" ? path : name);
      return { parent: known, name };
    }
    checkEntryPath(path);
    let ino = this.#top;
    let walked = "";
    for (const step of parent.split("/")) {
      walked = walked === "" ? step : `${walked}/${step}`;
      const entry = this.#fs.directory(ino).find(step);
      if (entry?.type !== "directory") {
        throw new VolcastError(
          "usage",
          `Cannot take the entry ${quote(path)}: ${quote(walked)} is ${
            entry === undefined ? "not there" : "not a directory"
          }`,
          "A tree names each directory before what is in it",
        );
      }
      ino = entry.ino;
      this.#remember(walked, ino);
    }
    return { parent: ino, name };
  }

  #remember(path: string, ino: number): void {
    if (this.#known.size >= MAX_KNOWN_DIRECTORIES) this.#known.clear();
    this.#known.set(path, ino);
  }

  /** The inode that has a name if it is of this type; anything else there is removed. */
  #findOfType(parent: number, name: string, type: TypeName): number | undefined {
    const entry = this.#fs.directory(parent).find(name);
    if (entry === undefined) return undefined;
    if (entry.type === type) return entry.ino;
    this.#remove(parent, entry);
    return undefined;
  }

  #create(parent: number, name: string, entry: TreeEntry): number {
    const { type, permissions, uid, gid, mtime, atime, btime, dos, rdev, target } = entry;
    return this.#fs.create(parent, name, {
      type,
      permissions,
      uid,
      gid,
      mtime,
      atime,
      btime,
      dos,
      rdev: rdev ?? 0,
      target: target ?? "",
    });
  }

  /** Removes a name and everything below it. */
  #remove(parent: number, entry: DirectoryEntry, seen = new SeenDirectories()): void {
    if (entry.type === "directory") {
      seen.enter(entry.ino, entry.name);
      this.#pending.delete(entry.ino);
      this.#known.clear();
      for (;;) {
        const batch = take(this.#fs.list(entry.ino), 1024);
        if (batch.length === 0) break;
        for (const child of batch) this.#remove(entry.ino, child, seen);
      }
    }
    this.#fs.remove(parent, entry.name);
    this.#fs.settle(entry.ino);
    this.report.removed++;
  }

  // --- claims -----------------------------------------------------------------------------------

  /** Whether another name of the tree has this inode already. */
  #isTaken(ino: number): boolean {
    return this.#claims.has(ino) && this.#inode(ino).nlink > 1;
  }

  #claim(parent: number, name: string, ino: number): void {
    if (this.#inode(ino).nlink > 1) this.#claims.addName(parent, name, ino);
    else this.#claims.add(ino);
  }

  // --- types ------------------------------------------------------------------------------------

  #directory(ino: number, state: State, entry: TreeEntry): void {
    const { path, type, permissions, uid, gid, mtime, atime, btime, size, dos } = entry;
    const changed = this.#setExtended(ino, entry.attributes);
    this.#claims.add(ino);
    this.report.directories++;
    const before = this.#pending.get(ino)?.state ?? state;
    this.#pending.set(ino, {
      entry: { path, type, permissions, uid, gid, mtime, atime, btime, size, dos },
      state: before === "unchanged" && changed ? "changed" : before,
    });
  }

  #hardLink(parent: number, name: string, entry: TreeEntry): undefined {
    const first = this.#place(entry.linkTo!);
    const found = this.#fs.directory(first.parent).find(first.name);
    if (found === undefined || found.type === "directory" || !this.#claims.has(found.ino)) {
      throw new VolcastError(
        "usage",
        `Cannot make the hard link: there is no file ${quote(entry.linkTo!)} before it in the tree`,
      );
    }
    const present = this.#fs.directory(parent).find(name);
    if (present?.ino !== found.ino) {
      if (present !== undefined) this.#remove(parent, present);
      this.#fs.link(parent, name, found.ino);
      this.#fs.settle(found.ino);
    }
    this.#claims.addName(first.parent, first.name, found.ino);
    this.#claims.addName(parent, name, found.ino);
    this.report.hardLinks++;
    this.#count(stateOf(present !== undefined, present?.ino !== found.ino));
  }

  /** Symbolic links, devices, fifos, sockets. */
  #special(parent: number, name: string, entry: TreeEntry): undefined {
    const present = this.#findOfType(parent, name, entry.type);
    const equal = present !== undefined && !this.#isTaken(present) &&
      (entry.type === "symlink"
        ? this.#fs.readLink(present) === entry.target
        : this.#inode(present).rdev === (entry.rdev ?? 0));
    let ino = present;
    if (ino === undefined || !equal) {
      if (ino !== undefined) {
        this.#fs.remove(parent, name);
        this.#fs.settle(ino);
      }
      ino = this.#create(parent, name, entry);
    }
    const changed = this.#complete(parent, name, ino, entry);
    this.report[entry.type === "symlink" ? "symlinks" : "others"]++;
    this.#count(stateOf(present !== undefined, !equal || changed));
  }

  async #file(parent: number, name: string, entry: TreeEntry): Promise<void> {
    const present = this.#findOfType(parent, name, "file");
    const taken = present !== undefined && this.#isTaken(present);
    let ino: number;
    if (entry.unchanged) {
      ino = this.#asUnchanged(present, entry);
      if (taken) ino = this.#leave({ parent, name, ino }, entry.size, entry);
    } else if (
      present !== undefined && !taken && !this.#options.checksum && this.#isSame(present, entry)
    ) {
      ino = present;
    } else {
      try {
        ino = await this.#content({ parent, name, ino: present, taken }, entry);
      } catch (error) {
        if (!(error instanceof UnreadableEntry)) throw error;
        this.#skipped.add(entry.path, error.message);
        // What the volume has of it stays, as it is not known to be gone.
        if (present !== undefined) this.#claim(parent, name, present);
        return;
      }
    }
    const written = this.#written;
    this.#written = false;
    const changed = this.#complete(parent, name, ino, entry) || written || ino !== present;
    this.report.files++;
    this.#count(stateOf(present !== undefined, changed));
  }
  #written = false;

  /** The file that the sender takes for unchanged. */
  #asUnchanged(present: number | undefined, entry: TreeEntry): number {
    if (present !== undefined && this.#isSame(present, entry)) return present;
    throw new VolcastError(
      "diverged",
      "Cannot keep the file as it is: the sender saw another size or mtime than it has now",
      "Somebody else changed the volume: run the same command again",
    );
  }

  #isSame(ino: number, entry: TreeEntry): boolean {
    const { size, mtime } = this.#inode(ino);
    return size === entry.size && (this.#mtimes.get(ino) ?? mtime) === entry.mtime;
  }

  // --- content ----------------------------------------------------------------------------------

  /** Brings a file's content in. @returns The inode that has it. */
  async #content(
    at: { parent: number; name: string; ino: number | undefined; taken: boolean },
    entry: TreeEntry,
  ): Promise<number> {
    const fs = this.#fs;
    const comparable = at.taken ? undefined : at.ino;
    /** The file that is written; none while all that came is equal to what is there. */
    let target: number | undefined;
    let offset = 0;
    const begin = () => {
      this.#written = true;
      if (at.ino === undefined) return this.#create(at.parent, at.name, entry);
      if (this.#inode(at.ino).nlink === 1) return at.ino;
      return this.#leave({ ...at, ino: at.ino }, at.taken ? 0 : offset, entry);
    };
    try {
      for await (const chunk of entry.read?.() ?? []) {
        this.report.bytesRead += chunk.length;
        const equal = target === undefined && comparable !== undefined &&
          this.#isEqual(comparable, offset, chunk);
        if (!equal) fs.write(target ??= begin(), offset, chunk);
        offset += chunk.length;
        if (chunk.length >= CHUNK_BYTES) await this.#writer.checkpointIfDue();
      }
      if (offset !== entry.size) throw tornContent(offset, entry.size);
    } catch (error) {
      // A new file that is not whole must not be taken for one.
      if (target !== undefined && at.ino === undefined) this.#removeTorn(at);
      throw error;
    }
    if (
      target === undefined && (comparable === undefined || this.#inode(comparable).size > offset)
    ) {
      target = begin();
    }
    if (target !== undefined && this.#inode(target).size > offset) fs.truncate(target, offset);
    return target ?? comparable!;
  }

  /** Removes a file as far as the volume lets anything be done: what failed before is what is told. */
  #removeTorn({ parent, name }: { parent: number; name: string }): void {
    try {
      this.#fs.remove(parent, name);
    } catch (error) {
      if (!(error instanceof VolcastError)) throw error;
    }
  }

  #isEqual(ino: number, offset: number, chunk: Uint8Array): boolean {
    const scratch = chunk.length <= this.#scratch.length
      ? this.#scratch.subarray(0, chunk.length)
      : new Uint8Array(chunk.length);
    return this.#fs.read(ino, offset, scratch) === chunk.length && equalBytes(scratch, chunk);
  }

  /**
   * Takes a name away from a file with several, for a new file with the first `byteCount` bytes of
   * its content.
   */
  #leave(
    at: { parent: number; name: string; ino: number },
    byteCount: number,
    entry: TreeEntry,
  ): number {
    const fs = this.#fs;
    fs.remove(at.parent, at.name);
    fs.settle(at.ino);
    const ino = this.#create(at.parent, at.name, entry);
    for (let offset = 0; offset < byteCount; offset += CHUNK_BYTES) {
      const chunk = this.#scratch.subarray(0, Math.min(CHUNK_BYTES, byteCount - offset));
      fs.read(at.ino, offset, chunk);
      fs.write(ino, offset, chunk);
    }
    return ino;
  }

  // --- attributes -------------------------------------------------------------------------------

  /** The end of every entry but directories. @returns Whether an attribute changed. */
  #complete(parent: number, name: string, ino: number, entry: TreeEntry): boolean {
    const extended = this.#setExtended(ino, entry.attributes);
    const changed = this.#setAttributes(ino, entry);
    this.#claim(parent, name, ino);
    return extended || changed;
  }

  #setAttributes(ino: number, entry: TreeEntry): boolean {
    const inode = this.#inode(ino);
    const differs = isDifferent(inode, entry);
    if (differs) {
      const { permissions, uid, gid, mtime, atime, btime, dos } = entry;
      if (inode.nlink > 1 && entry.type === "file" && !this.#mtimes.has(ino)) {
        this.#mtimes.set(ino, inode.mtime);
      }
      this.#fs.setAttributes(ino, { permissions, uid, gid, mtime, atime, btime, dos });
    }
    this.#fs.settle(ino);
    return differs;
  }

  #setExtended(ino: number, wanted: Attributes | undefined): boolean {
    if (wanted === undefined) return false;
    const bytes = encodeAttributes(wanted);
    const size = this.#inode(ino).attributeSize;
    if (size === bytes.length) {
      if (size === 0 || equalBytes(encodeAttributes(this.#fs.attributes(ino)), bytes)) return false;
    }
    this.#fs.setExtendedAttributes(ino, wanted);
    return true;
  }

  #inode(ino: number): Inode {
    return this.#fs.open(ino).inode;
  }

  #count(state: State): void {
    this.report[state]++;
  }
}

function tornContent(came: number, announced: number): VolcastError {
  return new VolcastError(
    "io",
    `Cannot take its content: ${came} bytes came, ${announced} were announced`,
    "The file was changed while it was read: run the command again",
  );
}

function isDifferent(inode: Inode, entry: TreeEntry): boolean {
  return (inode.mode & 0o7777) !== entry.permissions || inode.uid !== entry.uid ||
    inode.gid !== entry.gid || inode.mtime !== entry.mtime ||
    (entry.dos !== undefined && inode.dos !== entry.dos);
}

function stateOf(present: boolean, changed: boolean): State {
  if (!present) return "created";
  return changed ? "changed" : "unchanged";
}

function take<T>(items: Iterable<T>, most: number): T[] {
  const taken: T[] = [];
  for (const item of items) {
    taken.push(item);
    if (taken.length === most) break;
  }
  return taken;
}

/** The error with the path of its entry. */
function naming(path: string, error: unknown): VolcastError {
  const text = messageOf(error);
  if (error instanceof VolcastError && text.includes(quote(path))) return error;
  const reason = text.startsWith("Cannot ") ? `c${text.slice(1)}` : text;
  const [kind, hint] = error instanceof VolcastError
    ? [error.kind, error.hint]
    : ["io", ""] as const;
  return new VolcastError(kind, `Cannot import ${quote(path)}: ${reason}`, hint, { cause: error });
}

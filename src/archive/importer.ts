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
 * A tree is told of directory by directory, names in order, where its source can do that. Then nothing
 * is looked up but names in the directory at hand, and pruning looks only into directories that have
 * more names than the tree gave them.
 *
 * @module
 */

import { messageOf, VolcastError } from "../core/mod.ts";
import {
  type Attributes,
  encodeAttributes,
  equalBytes,
  INO,
  type InodeHead,
  type TypeName,
} from "../format/mod.ts";
import {
  type DirectoryEntry,
  type LiveFileSystem,
  SeenDirectories,
  type Writer,
} from "../volume/mod.ts";
import { Claims } from "./claims.ts";
import { createEntry, FileContents, type Taken } from "./file_content.ts";
import type { ImportOptions, ImportReport } from "./import_report.ts";
import {
  checkEntryPath,
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
  /** @returns A promise only where it has to wait. */
  const take = (entry: TreeEntry): Promise<void> | undefined => {
    const isLook = ++count % CHECKPOINT_ENTRIES === 0;
    try {
      const pending = run.take(entry);
      if (pending === undefined && !isLook) return undefined;
      return settled(entry, pending, isLook);
    } catch (error) {
      throw naming(entry.path, error);
    }
  };
  const settled = async (entry: TreeEntry, pending: Promise<void> | undefined, isLook: boolean) => {
    try {
      await pending;
    } catch (error) {
      throw naming(entry.path, error);
    }
    if (!isLook) return;
    options.progress?.({ entries: count, bytes: run.bytesRead });
    await writer.checkpointIfDue();
  };
  if (Symbol.asyncIterator in entries) {
    for await (const entry of entries) await take(entry);
  } else {
    for (const entry of entries) {
      const pending = take(entry);
      if (pending !== undefined) await pending;
    }
  }
  if (options.prune) await run.prune();
  await run.finish();
  return run.result();
}

type State = "created" | "changed" | "unchanged";

/** A directory of the tree: what is set on it when its children are there, and what of them came. */
interface PendingDirectory {
  readonly entry: TreeEntry;
  readonly state: State;
  readonly names: GivenNames;
}

/** The names that the tree gave to a directory. */
interface GivenNames {
  /** How many, as long as each came behind the one before and so none came twice; then `NaN`. */
  count: number;
  last: string;
  /** How many names the directory had when the tree went elsewhere, if nothing changed it since. */
  size: number | undefined;
}

/** The directory into which the last entry went: the next one mostly goes there too. */
interface Here {
  readonly ino: number;
  /** Its path with a `/` behind it; empty for the top. */
  readonly prefix: string;
  readonly names: GivenNames | undefined;
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
  readonly #contents: FileContents;
  #here: Here | undefined;

  constructor(writer: Writer, options: ImportOptions) {
    this.#writer = writer;
    this.#fs = writer.fs;
    this.#contents = new FileContents(writer);
    this.#options = options;
    this.#top = this.#makeTop(options.into ?? "");
  }

  /** Bytes of content that came so far. */
  get bytesRead(): number {
    return this.#contents.bytesRead;
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
    const { parent, name } = this.#enter(entry.path);
    if (entry.linkTo !== undefined) return this.#hardLink(parent, name, entry);
    if (entry.type === "file") return this.#file(parent, name, entry);
    if (entry.type !== "directory") return this.#special(parent, name, entry);
    const present = this.#findOfType(parent, name, "directory");
    const ino = present ?? createEntry(this.#fs, parent, name, entry);
    this.#named(name);
    this.#remember(entry.path, ino);
    this.#directory(ino, present === undefined ? "created" : "unchanged", entry);
  }

  /** Removes what the tree did not have. */
  async prune(): Promise<void> {
    this.#leave();
    await this.#pruneDirectory(this.#top);
    for (const directory of this.#pending.keys()) {
      if (directory !== this.#top) await this.#pruneDirectory(directory);
    }
  }

  async #pruneDirectory(directory: number): Promise<void> {
    // Names that came in order are all different, and all are there: as many are all there are.
    const names = this.#pending.get(directory)?.names;
    if (names !== undefined && names.count === (names.size ?? this.#sizeOf(directory))) return;
    let last: string | undefined;
    for (;;) {
      const batch = take(this.#fs.list(directory, last), 1024);
      if (batch.length === 0) break;
      for (const entry of batch) {
        if (!this.#claims.isNamed(directory, entry)) this.#remove(directory, entry);
      }
      last = batch[batch.length - 1].name;
      await this.#writer.checkpointIfDue();
    }
  }

  /** Sets the attributes of directories, which their children changed. */
  async finish(): Promise<void> {
    let count = 0;
    for (const [ino, { entry, state }] of this.#pending) {
      try {
        const changed = this.#setAttributes(ino, this.#inode(ino), entry);
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
      bytesRead: this.bytesRead,
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

  /** Goes to the directory an entry belongs into. */
  #enter(path: string): { parent: number; name: string } {
    const here = this.#here;
    const start = path.lastIndexOf("/") + 1;
    if (here !== undefined && start === here.prefix.length && path.startsWith(here.prefix)) {
      const name = path.slice(start);
      // The directory's own path was checked when it came.
      checkEntryPath(name === "" ? path : name);
      return { parent: here.ino, name };
    }
    this.#leave();
    const place = this.#place(path);
    const names = this.#pending.get(place.parent)?.names;
    if (names !== undefined) names.size = undefined;
    this.#here = { ino: place.parent, prefix: path.slice(0, start), names };
    return place;
  }

  /** Goes from the directory it is at: to look at its size costs nothing while it is at hand. */
  #leave(): void {
    const here = this.#here;
    if (here?.names !== undefined) here.names.size = this.#sizeOf(here.ino);
    this.#here = undefined;
  }

  #sizeOf(directory: number): number {
    return this.#fs.directory(directory).size;
  }

  /** The tree gave a name to the directory it is at, and the name is there now. */
  #named(name: string): void {
    const names = this.#here?.names;
    if (names === undefined) return;
    if (name > names.last) names.count++;
    else names.count = NaN;
    names.last = name;
  }

  /** The directory of a path. */
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

  /** Removes a name and everything below it. */
  #remove(parent: number, entry: DirectoryEntry, seen = new SeenDirectories()): void {
    if (entry.type === "directory") {
      seen.enter(entry.ino, entry.name);
      this.#pending.delete(entry.ino);
      this.#known.clear();
      this.#here = undefined;
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

  #claim(parent: number, name: string, ino: number, { nlink }: InodeHead): void {
    this.#named(name);
    if (nlink > 1) this.#claims.addName(parent, name, ino);
    else this.#claims.add(ino);
  }

  // --- types ------------------------------------------------------------------------------------

  #directory(ino: number, state: State, entry: TreeEntry): void {
    const { path, type, permissions, uid, gid, mtime, atime, btime, size, dos } = entry;
    const changed = this.#setExtended(ino, entry.attributes);
    this.#claims.add(ino);
    this.report.directories++;
    const earlier = this.#pending.get(ino);
    const before = earlier?.state ?? state;
    this.#pending.set(ino, {
      entry: { path, type, permissions, uid, gid, mtime, atime, btime, size, dos },
      state: before === "unchanged" && changed ? "changed" : before,
      names: earlier?.names ?? { count: 0, last: "", size: undefined },
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
    this.#named(name);
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
      ino = createEntry(this.#fs, parent, name, entry);
    }
    const changed = this.#complete(parent, name, ino, entry);
    this.report[entry.type === "symlink" ? "symlinks" : "others"]++;
    this.#count(stateOf(present !== undefined, !equal || changed));
  }

  /** @returns A promise only where it has to wait. */
  #file(parent: number, name: string, entry: TreeEntry): Promise<void> | undefined {
    const present = this.#findOfType(parent, name, "file");
    const taken = present !== undefined && this.#isTaken(present);
    const inode = present === undefined ? undefined : this.#inode(present);
    const done = ({ ino, written }: Taken, known?: InodeHead) => {
      const changed = this.#complete(parent, name, ino, entry, known);
      this.report.files++;
      this.#count(stateOf(present !== undefined, changed || written || ino !== present));
    };
    if (entry.unchanged) {
      const ino = this.#asUnchanged(present, inode, entry);
      if (!taken) {
        done({ ino, written: false }, inode);
        return;
      }
      const own = this.#contents.leave({ parent, name, ino }, entry.size, entry);
      done({ ino: own, written: true });
      return;
    }
    const isSame = present !== undefined && !taken && !this.#options.checksum &&
      this.#isSame(present, inode!, entry);
    if (isSame) {
      done({ ino: present, written: false }, inode);
      return;
    }
    let content: Taken | Promise<Taken>;
    try {
      content = this.#contents.take({ parent, name, ino: present, taken }, entry);
    } catch (error) {
      this.#leaveOut(parent, name, present, entry, error);
      return;
    }
    if (!(content instanceof Promise)) done(content);
    else return content.then(done, (error) => this.#leaveOut(parent, name, present, entry, error));
  }

  /** A file that cannot be read: what the volume has of it stays, as it is not known to be gone. */
  #leaveOut(
    parent: number,
    name: string,
    present: number | undefined,
    entry: TreeEntry,
    error: unknown,
  ): void {
    if (!(error instanceof UnreadableEntry)) throw error;
    this.#skipped.add(entry.path, error.message);
    if (present !== undefined) this.#claim(parent, name, present, this.#inode(present));
  }

  /** The file that the sender takes for unchanged. */
  #asUnchanged(
    present: number | undefined,
    inode: InodeHead | undefined,
    entry: TreeEntry,
  ): number {
    if (present !== undefined && this.#isSame(present, inode!, entry)) return present;
    throw new VolcastError(
      "diverged",
      "Cannot keep the file as it is: the sender saw another size or mtime than it has now",
      "Somebody else changed the volume: run the same command again",
    );
  }

  #isSame(ino: number, { size, mtime }: InodeHead, entry: TreeEntry): boolean {
    return size === entry.size && (this.#mtimes.get(ino) ?? mtime) === entry.mtime;
  }

  // --- attributes -------------------------------------------------------------------------------

  /**
   * The end of every entry but directories. @returns Whether an attribute changed.
   * @param known The inode, where it was looked at since it changed.
   */
  #complete(
    parent: number,
    name: string,
    ino: number,
    entry: TreeEntry,
    known?: InodeHead,
  ): boolean {
    const extended = this.#setExtended(ino, entry.attributes);
    const inode = known === undefined || extended ? this.#inode(ino) : known;
    const changed = this.#setAttributes(ino, inode, entry);
    this.#claim(parent, name, ino, inode);
    return extended || changed;
  }

  #setAttributes(ino: number, inode: InodeHead, entry: TreeEntry): boolean {
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

  #inode(ino: number): InodeHead {
    return this.#fs.inodeOf(ino);
  }

  #count(state: State): void {
    this.report[state]++;
  }
}

function isDifferent(inode: InodeHead, entry: TreeEntry): boolean {
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

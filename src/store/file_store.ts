// deno-lint-ignore-file no-sync-fn-in-async-fn
// Synchronous on purpose: see invariant 1.
/**
 * A block store in one file.
 *
 * Invariants:
 * 1. Seek and read (or write) are one synchronous pair: nothing else can move the cursor between. Where it is
 *    after them is known only to them, and only when they were whole: until the next pair nobody moves it.
 * 2. A short read behind the end of the file is zeros: a volume file is sparse and may be short.
 * 3. The process that opened the file for writing holds its exclusive lock; those that can only read it
 *    share one, and write nothing.
 * 4. After the first failed write or sync nothing is written until `retry`: what the host's cache holds
 *    then is unknown, and a later sync that succeeds would prove nothing of what was written before.
 *
 * @module
 */

import { type ErrorKind, messageOf, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE } from "../format/mod.ts";
import { type BlockStore, checkRun } from "./block_store.ts";
import { FileReader } from "./file_reader.ts";

/** Options of {@linkcode FileStore.open}. */
export interface FileStoreOptions {
  /** Blocks, which a file gets at once, sparse; by default the size of the file. */
  readonly capacity?: number;
  /** Blocks to which a file may grow as it is written; a device stays as it is. */
  readonly most?: number;
  /** Makes a new file, and fails when there is one. */
  readonly create?: boolean;
  /** Whether {@linkcode FileStore.readParallel} is there: reads beside others, of other stores. */
  readonly parallel?: boolean;
  /** Whether a file that the host lets nobody write is opened to be read, see `readOnly`. */
  readonly orReadOnly?: boolean;
}

/** See the module. */
export class FileStore implements BlockStore {
  readonly path: string;
  readonly capacity: number;
  /** Blocks that the file had when it was opened. */
  readonly initialBlocks: number;
  /** Why the host lets nobody write it. */
  readonly readOnly: VolcastError | undefined;
  /** There if it was asked for. */
  readonly readParallel?: NonNullable<BlockStore["readParallel"]>;
  readonly #file: Deno.FsFile;
  readonly #reader: FileReader | undefined;
  #failure: VolcastError | undefined;
  /** Where the cursor is; -1: unknown. */
  #position = -1;

  private constructor(
    path: string,
    file: Deno.FsFile,
    options: {
      blocks: number;
      capacity?: number;
      parallel?: boolean;
      readOnly?: VolcastError | undefined;
    },
  ) {
    this.path = path;
    this.readOnly = options.readOnly;
    this.#file = file;
    this.initialBlocks = options.blocks;
    this.capacity = options.capacity ?? options.blocks;
    if (!options.parallel) return;
    const reader = new FileReader(path);
    this.#reader = reader;
    this.readParallel = async (parts) => {
      for (const { vbn, target } of parts) checkRun(this.capacity, vbn, target.length);
      try {
        await reader.read(parts);
      } catch (error) {
        throw hostError(`Cannot read ${path} from VBN ${parts[0].vbn} on`, error);
      }
    };
  }

  /**
   * Opens or makes a file and takes its lock.
   *
   * @throws {VolcastError} `not-found`, `exists`, `denied`, `read-only`, `busy` (another process has it),
   *   `io`.
   */
  static open(path: string, options: FileStoreOptions = {}): FileStore {
    const { file, readOnly } = openFile(path, options);
    try {
      const info = file.statSync();
      if (!info.isFile && !info.isBlockDevice) {
        throw new VolcastError("usage", `Cannot open ${path}: it is neither a file nor a disk`);
      }
      // Two holders would each think that they alone decide which blocks are free.
      if (!file.tryLockSync(readOnly === undefined)) {
        throw new VolcastError("busy", `Cannot open ${path}: another process has it open`);
      }
      const blocks = blocksOf(file, info);
      if (options.capacity !== undefined && info.isFile) {
        file.truncateSync(options.capacity * BLOCK_SIZE);
      }
      const capacity = options.capacity ?? (info.isFile ? options.most : undefined);
      return new FileStore(path, file, {
        blocks,
        ...(capacity === undefined ? {} : { capacity }),
        parallel: options.parallel ?? false,
        readOnly,
      });
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Opens a file only to look at it, past its lock. */
  static peek(path: string): FileStore {
    const file = Deno.openSync(path, { read: true });
    return new FileStore(path, file, { blocks: blocksOf(file, file.statSync()) });
  }

  /** Makes the names in a directory durable. A file system that cannot do that is left alone. */
  static syncDirectory(path: string): void {
    try {
      using directory = Deno.openSync(path, { read: true });
      directory.syncSync();
    } catch {
      // Not every file system takes it; those that need it do.
    }
  }

  read(vbn: number, target: Uint8Array): void {
    checkRun(this.capacity, vbn, target.length);
    try {
      this.#seek(vbn);
      let done = 0;
      while (done < target.length) {
        const count = this.#file.readSync(target.subarray(done));
        if (count === null) {
          target.fill(0, done);
          return;
        }
        done += count;
      }
      this.#position = vbn * BLOCK_SIZE + done;
    } catch (error) {
      throw hostError(`Cannot read ${this.path} at VBN ${vbn}`, error);
    }
  }

  write(vbn: number, source: Uint8Array): void {
    checkRun(this.capacity, vbn, source.length);
    this.#checkHealth();
    try {
      this.#seek(vbn);
      let done = 0;
      while (done < source.length) done += this.#file.writeSync(source.subarray(done));
      this.#position = vbn * BLOCK_SIZE + done;
    } catch (error) {
      throw this.#fail(hostError(`Cannot write ${this.path} at VBN ${vbn}`, error));
    }
  }

  async sync(): Promise<void> {
    this.#checkHealth();
    try {
      await this.#file.syncData();
    } catch (error) {
      throw this.#fail(hostError(`Cannot make writes to ${this.path} durable`, error));
    }
  }

  retry(): Promise<void> {
    this.#failure = undefined;
    return Promise.resolve();
  }

  close(): void {
    // Closing alone is not enough: a child that is being started has the descriptor, and with it the
    // lock, until it runs its program.
    this.#file.unlockSync();
    this.#file.close();
    this.#reader?.close();
  }

  /** Takes the cursor to a block, if it is not there. Afterwards its place is unknown until it is noted. */
  #seek(vbn: number): void {
    const wanted = vbn * BLOCK_SIZE;
    if (this.#position !== wanted) this.#file.seekSync(wanted, Deno.SeekMode.Start);
    this.#position = -1;
  }

  #checkHealth(): void {
    if (this.readOnly !== undefined) throw this.readOnly;
    if (this.#failure !== undefined) throw this.#failure;
  }

  #fail(error: VolcastError): VolcastError {
    this.#failure = new VolcastError(
      error.kind,
      `${error.message}; nothing was written after that`,
      error.hint,
      { cause: error },
    );
    return this.#failure;
  }
}

/** A device has no size in what `stat` tells. */
function blocksOf(file: Deno.FsFile, info: Deno.FileInfo): number {
  const size = info.isBlockDevice ? file.seekSync(0, Deno.SeekMode.End) : info.size;
  return Math.floor(size / BLOCK_SIZE);
}

function openFile(
  path: string,
  { create = false, orReadOnly = false }: FileStoreOptions,
): { file: Deno.FsFile; readOnly?: VolcastError } {
  try {
    return { file: Deno.openSync(path, { read: true, write: true, createNew: create }) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new VolcastError(
        "not-found",
        `Cannot open ${path}: there is no such file or directory`,
        create ? "Make its directory first" : `Make one with: volcast init ${path} --size 4GiB`,
      );
    }
    if (error instanceof Deno.errors.AlreadyExists) {
      throw new VolcastError(
        "exists",
        `Cannot make ${path}: it exists already`,
        "Choose another path, or remove the file if it is not needed",
      );
    }
    const reason = deniedError(`Cannot ${create ? "make" : "write"} ${path}`, error) ??
      hostError(`Cannot ${create ? "make" : "open"} ${path}`, error);
    if (!orReadOnly || (reason.kind !== "denied" && reason.kind !== "read-only")) throw reason;
    try {
      return { file: Deno.openSync(path, { read: true }), readOnly: reason };
    } catch {
      throw reason;
    }
  }
}

/** What to say where the host, or the program's own permissions, forbid something. */
export function deniedError(what: string, error: unknown): VolcastError | undefined {
  const isForbidden = error instanceof Deno.errors.NotCapable;
  if (!isForbidden && !(error instanceof Deno.errors.PermissionDenied)) return undefined;
  return new VolcastError(
    "denied",
    `${what}: ${error.message}`,
    isForbidden
      ? "The compiled program may not touch /dev, /proc, /sys: put the file elsewhere; for a device make " +
        "a node elsewhere, as in: mknod disk b $(stat -c '0x%t 0x%T' /dev/sdb); or run from source with " +
        "deno run -A main.ts"
      : "Run as the user that owns it, or change its permissions; lsattr shows whether it is immutable",
  );
}

/** Errors of the host that have a way out, by number: Linux's, and those that others share. */
const WAYS_OUT: readonly (readonly [numbers: RegExp, kind: ErrorKind, hint: string])[] = [
  [
    /os error 28\b|No space left/i,
    "full",
    "Free space in the file system that holds it, or make that larger",
  ],
  [/os error 122\b|quota exceeded/i, "full", "Free space of the same owner, or raise the quota"],
  [
    /os error 27\b|file too large/i,
    "full",
    "Its file system takes no file of this size, or ulimit -f forbids it",
  ],
  [
    /os error 30\b|Read-only file system/i,
    "read-only",
    "Make the file system that holds it writable; the kernel's log says why it is not",
  ],
  [
    /os error (1|13)\b|not permitted|Permission denied/i,
    "denied",
    "Change the permissions of the file; lsattr shows whether it is immutable",
  ],
];

/** An error of the host, with what can be done about it. @param what `Cannot write PATH` */
export function hostError(what: string, error: unknown): VolcastError {
  const text = messageOf(error);
  const [, kind, hint] = WAYS_OUT.find(([numbers]) => numbers.test(text)) ?? [, "io" as const, ""];
  return new VolcastError(kind, `${what}: ${text}`, hint, { cause: error });
}

/**
 * The trees of the bench, each in two releases.
 *
 * Files that did not change are one file with a name in each release: that saves memory, and no peer
 * looks at two releases at once.
 *
 * @module
 */

import { ContentMaker } from "./content.ts";

/** What a tree is like. */
export type TreeKind = "many" | "large" | "database" | "pages";

/** How much there is of everything. */
export interface Sizes {
  /** Files of `many`. */
  readonly manyFiles: number;
  /** Bytes of each of the four files of `large`. */
  readonly largeBytes: number;
  /** Bytes of the one file of `database`. */
  readonly databaseBytes: number;
  /** Files of 10 KiB of `pages`. */
  readonly pages: number;
}

/** Two releases of a tree. */
export interface Releases {
  readonly kind: TreeKind;
  readonly first: string;
  readonly second: string;
  /** What it is, for the reader of the table. */
  readonly description: string;
  readonly files: number;
  /** Bytes of the first release. */
  readonly bytes: number;
}

/** Bytes of a file of `pages`. */
export const PAGE_FILE_BYTES = 10_240;
const LARGE_FILES = 4;
const PAGE_BYTES = 4096;
/** 1 % changes. */
const CHANGED = 0.01;
const SEED = 1;
/** Times of the releases, seconds since 1970. */
const FIRST_TIME = 1_600_000_000;
const SECOND_TIME = 1_600_086_400;

/** Makes both releases below `directory`. */
export function makeReleases(directory: string, kind: TreeKind, sizes: Sizes): Releases {
  const first = `${directory}/first`;
  const second = `${directory}/second`;
  const maker = new ContentMaker(SEED);
  Deno.mkdirSync(first, { recursive: true });
  const made = MAKERS[kind](maker, first, sizes);
  copyLinked(first, second);
  const changes = kind === "many" || kind === "pages"
    ? changeFiles(maker, second, made.paths)
    : changePages(maker, second, made.paths);
  setDirectoryTimes(first, second);
  const bytes = made.paths.reduce((sum, path) => sum + Deno.statSync(`${first}/${path}`).size, 0);
  const files = made.paths.length;
  return { kind, first, second, files, bytes, description: `${made.description}; ${changes}` };
}

interface Made {
  readonly paths: string[];
  readonly description: string;
}

const MAKERS: Record<TreeKind, (maker: ContentMaker, top: string, sizes: Sizes) => Made> = {
  many(maker, top, { manyFiles }) {
    const description = `${manyFiles} files, sizes as in /usr/share`;
    return { paths: makeMany(maker, top, manyFiles), description };
  },
  large(maker, top, { largeBytes }) {
    const paths = Array.from({ length: LARGE_FILES }, (_, i) => `large${i}`);
    for (const path of paths) writeLarge(maker, `${top}/${path}`, largeBytes);
    return { paths, description: `${LARGE_FILES} files of ${largeBytes} bytes` };
  },
  database(maker, top, { databaseBytes }) {
    writeLarge(maker, `${top}/database`, databaseBytes);
    return { paths: ["database"], description: `one file of ${databaseBytes} bytes` };
  },
  pages(maker, top, { pages }) {
    const paths = Array.from({ length: pages }, (_, i) => `page${i}.html`);
    for (const path of paths) write(`${top}/${path}`, maker.text(PAGE_FILE_BYTES), FIRST_TIME);
    return { paths, description: `${pages} files of ${PAGE_FILE_BYTES} bytes` };
  },
};

/** Many files, some fifteen a directory, in directories of three levels. @returns Their paths. */
export function makeMany(maker: ContentMaker, top: string, count: number): string[] {
  const directories = [""];
  for (let i = 0; i < count / 15; i++) {
    const parent = maker.pick(directories.slice(0, 1 + Math.floor(directories.length / 8)));
    const path = `${parent}directory${i}/`;
    Deno.mkdirSync(`${top}/${path}`);
    directories.push(path);
  }
  const paths: string[] = [];
  for (let i = 0; i < count; i++) {
    const path = `${maker.pick(directories)}file${i}`;
    write(`${top}/${path}`, maker.content(maker.size()), FIRST_TIME);
    paths.push(path);
  }
  return paths;
}

function writeLarge(maker: ContentMaker, path: string, byteCount: number): void {
  const file = Deno.openSync(path, { write: true, createNew: true });
  for (let at = 0; at < byteCount;) {
    const bytes = maker.content(Math.min(2 ** 20, byteCount - at));
    for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
    at += bytes.length;
  }
  file.close();
  Deno.utimeSync(path, FIRST_TIME, FIRST_TIME);
}

function write(path: string, bytes: Uint8Array, time: number): void {
  Deno.writeFileSync(path, bytes);
  Deno.utimeSync(path, time, time);
}

function copyLinked(from: string, to: string): void {
  Deno.mkdirSync(to);
  for (const { name, isDirectory } of Deno.readDirSync(from)) {
    if (isDirectory) copyLinked(`${from}/${name}`, `${to}/${name}`);
    else Deno.linkSync(`${from}/${name}`, `${to}/${name}`);
  }
}

/** Only directories in which names came or went are newer in the second release. */
function setDirectoryTimes(first: string, second: string): void {
  const names = (path: string) => Array.from(Deno.readDirSync(path), ({ name }) => name).sort();
  const [before, after] = [names(first), names(second)];
  for (const { name, isDirectory } of Deno.readDirSync(first)) {
    if (isDirectory) setDirectoryTimes(`${first}/${name}`, `${second}/${name}`);
  }
  const isSame = before.join("\0") === after.join("\0");
  Deno.utimeSync(first, FIRST_TIME, FIRST_TIME);
  const time = isSame ? FIRST_TIME : SECOND_TIME;
  Deno.utimeSync(second, time, time);
}

/** Of 1 % of the files half are edited, a quarter is renamed, a quarter removed; as many new ones come. */
function changeFiles(maker: ContentMaker, top: string, paths: readonly string[]): string {
  const left = [...paths];
  const take = () => left.splice(Math.floor(maker.random() * left.length), 1)[0];
  const quarter = Math.max(1, Math.round(paths.length * CHANGED / 4));
  for (let i = 0; i < 2 * quarter; i++) edit(maker, `${top}/${take()}`);
  for (let i = 0; i < quarter; i++) {
    const path = `${top}/${take()}`;
    Deno.renameSync(path, `${path} renamed`);
  }
  for (let i = 0; i < quarter; i++) {
    const path = `${top}/${take()}`;
    Deno.removeSync(path);
    write(`${path} new`, maker.content(maker.size()), SECOND_TIME);
  }
  return `${2 * quarter} edited, ${quarter} renamed, ${quarter} removed, ${quarter} new`;
}

/** A line is put somewhere into a file. */
function edit(maker: ContentMaker, path: string): void {
  const old = Deno.readFileSync(path);
  const line = maker.text(60);
  const at = Math.floor(maker.random() * old.length);
  const bytes = new Uint8Array(old.length + line.length);
  bytes.set(old.subarray(0, at));
  bytes.set(line, at);
  bytes.set(old.subarray(at), at + line.length);
  // The other release has the same file.
  Deno.removeSync(path);
  write(path, bytes, SECOND_TIME);
}

/** 1 % of the pages of 4 KiB, scattered, get other content. */
function changePages(maker: ContentMaker, top: string, paths: readonly string[]): string {
  let count = 0;
  for (const name of paths) {
    const path = `${top}/${name}`;
    const other = `${path}.new`;
    Deno.copyFileSync(path, other);
    Deno.renameSync(other, path);
    const file = Deno.openSync(path, { write: true });
    const pages = Math.ceil(Deno.statSync(path).size / PAGE_BYTES);
    for (let i = 0; i < Math.max(1, pages * CHANGED); i++, count++) {
      file.seekSync(Math.floor(maker.random() * (pages - 1)) * PAGE_BYTES, Deno.SeekMode.Start);
      file.writeSync(maker.content(PAGE_BYTES));
    }
    file.close();
    Deno.utimeSync(path, SECOND_TIME, SECOND_TIME);
  }
  return `${count} pages of ${PAGE_BYTES} bytes changed`;
}

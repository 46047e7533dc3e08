/**
 * Trees that come from outside: tar archives into a volume and onto the host, and entries that lead out of
 * where they should stay. Nothing may be written outside of the target.
 *
 * @module
 */

import {
  type Content,
  entriesFromTar,
  importTree,
  tarFromEntries,
  treeEntries,
  type TreeEntry,
} from "../../../src/archive/mod.ts";
import { writeHostTree } from "../../../src/cli/host_write.ts";
import { MemoryStore } from "../../../src/store/mod.ts";
import { fsck, Volume } from "../../../src/volume/mod.ts";
import { tickingClock } from "../../helpers/history.ts";
import type { Random } from "../../helpers/random.ts";
import { copyOf } from "../../helpers/stores.ts";
import { collect, streamOf } from "../../helpers/streams.ts";
import { GuardStore } from "../guard_store.ts";
import { applySteps, byteStep, fromHex, joined, toHex } from "../mutate.ts";
import { makeScene, OPTIONS } from "../scene.ts";
import type { Input, Step, Target } from "../target.ts";
import type { Watch } from "../watch.ts";

const PATHS = [
  "a",
  "b",
  "a/b",
  "a/b/c",
  "..",
  ".",
  "",
  "/",
  "/tmp/volcast-fuzz",
  "../out",
  "a/../../out",
  "a/./b",
  "a//b",
  "a/",
  "a\0b",
  "a/b\n",
  "x".repeat(255),
  "x".repeat(256),
  "y/".repeat(300) + "z",
  "\ufffd",
  "CON",
  "-rf",
];
const TARGETS_OF_LINKS = [
  "..",
  "../out",
  "/",
  "/tmp",
  "a",
  "a/b",
  ".",
  "",
  "x".repeat(5000),
  "a\0",
];
const TYPES = ["file", "directory", "symlink", "fifo", "charDevice", "socket"] as const;

/** Fields of a tar header: offset and size. */
const FIELDS: Readonly<Record<string, readonly [number, number]>> = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  type: [156, 1],
  link: [157, 100],
  magic: [257, 8],
  devmajor: [329, 8],
  devminor: [337, 8],
  prefix: [345, 155],
};
/** What a field may say: octal, base-256 numbers with and without a sign, and what is no number. */
const VALUES = [
  "37373737373737373737373720",
  "80ffffffffffffffffffffff",
  "800000000000001000000000",
  "ffffffffffffffffffffffff",
  "2d31",
  "3939393939",
  "2020202020",
  "00",
  "2e2e2f6f7574",
  "2f746d702f766f6c636173742d66757a7a",
  "67",
  "78",
  "4c",
  "4b",
  "53",
  "31",
  "32",
  "35",
  "37",
  "56",
];
const PAX = [
  "path=../out",
  "path=/tmp/volcast-fuzz",
  "path=a\0b",
  "size=99999999999999999999",
  "size=-1",
  "size=1e3",
  "mtime=1e400",
  "mtime=-99999999999999999999.999999999",
  "mtime=.",
  "linkpath=../../out",
  "GNU.sparse.major=1",
  "GNU.sparse.map=0,99999999999999999",
  "GNU.sparse.realsize=9999999999999",
  "GNU.sparse.name=../out",
  "SCHILY.xattr.user.a=1",
  "SCHILY.xattr.=",
  "LIBARCHIVE.xattr.user.b=!!!",
  "uid=-5",
  "uname=x",
  "=",
  "hdrcharset=BINARY",
];

/** See the module. */
export const archives: Target = {
  name: "archives",
  limits: { work: 150_000, arrayBytes: 65 * 2 ** 20, totalBytes: 2 * 2 ** 30 },
  async prepare() {
    const scene = await makeScene();
    const source = Volume.open(copyOf(scene.origin), OPTIONS);
    const fs = source.fileSystem(source.resolve("s3"));
    // Without the file that is a hole of 40 MiB.
    const entries = [...treeEntries(fs)].filter(({ path }) =>
      path !== "sparse" && path !== "large"
    );
    const tar = await collect(ReadableStream.from(tarFromEntries(entries)));
    const starts = headersOf(tar);
    source.abandon();
    const box = await Deno.makeTempDir({ prefix: "volcast-fuzz-" });
    return {
      make: (random) => makeInput(random, tar.length, starts),
      run: (input, watch) => run({ tar, starts, box, scene }, input, watch),
      close: () => Deno.remove(box, { recursive: true }),
    };
  },
};

/** Where headers lie in an archive. */
function headersOf(tar: Uint8Array): number[] {
  const starts: number[] = [];
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0;) {
    starts.push(at);
    const size = parseInt(new TextDecoder().decode(tar.subarray(at + 124, at + 135)), 8) || 0;
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return starts;
}

function makeInput(random: Random, length: number, starts: readonly number[]): Input {
  const steps: Step[] = [];
  const isTar = random.oneIn(2);
  const count = random.pick([1, 1, 2, 4, 8]);
  for (let i = 0; i < count; i++) {
    if (!isTar) {
      steps.push({
        op: "entry",
        path: random.pick(PATHS),
        type: random.oneIn(2) ? "file" : random.pick(TYPES),
        target: random.pick(TARGETS_OF_LINKS),
        ...(random.oneIn(6) ? { linkTo: random.pick(PATHS) } : {}),
      } as Step);
      continue;
    }
    const header = random.below(Math.min(starts.length, random.pick([3, 400])));
    switch (random.below(4)) {
      case 0:
      case 1: {
        const field = random.pick(Object.keys(FIELDS));
        const hex = random.oneIn(3) ? toHex(random.bytes(FIELDS[field][1])) : random.pick(VALUES);
        steps.push({ op: "tar", header, field, hex });
        break;
      }
      case 2:
        steps.push({
          op: "pax",
          header,
          record: random.pick(PAX),
          length: random.pick([0, 0, 0, 9]),
        });
        break;
      default:
        steps.push({ ...byteStep(random, length), raw: true });
    }
  }
  return steps;
}

interface Parts {
  readonly tar: Uint8Array;
  readonly starts: readonly number[];
  readonly box: string;
  readonly scene: { readonly origin: MemoryStore };
}

async function run({ tar, starts, box, scene }: Parts, input: Input, watch: Watch): Promise<void> {
  const bytes = archiveOf(tar, starts, input);
  const hostile = input.filter(({ op }) => op === "entry");
  const entries = () =>
    hostile.length > 0
      ? ReadableStream.from(hostile.map(entryOf))
      : entriesFromTar(streamOf(bytes)) as AsyncIterable<TreeEntry>;
  await intoVolume(entries(), watch, scene.origin);
  // Beside the target, and what a way out would lead to.
  const target = `${box}/target`;
  await Deno.mkdir(`${box}/out`);
  await Deno.writeTextFile(`${box}/out/kept`, "kept");
  const before = listing(box);
  // The host may refuse what a volume takes: names too long, two entries of one name.
  await watch.attempt("export", async () => {
    await writeHostTree(counted(entries(), watch), target);
  }, ["io"]);
  // Again, over what is there.
  await watch.attempt("export over", async () => {
    await writeHostTree(counted(entries(), watch), target, { overwrite: true });
  }, ["io"]);
  const after = listing(box);
  if (after !== before) watch.problem(`Something was written beside the target:\n${after}`);
  await clear(target);
  await Deno.remove(`${box}/out`, { recursive: true });
}

/** The archive with all changes; each changed header gets its checksum. */
function archiveOf(
  tar: Uint8Array,
  starts: readonly number[],
  input: Input,
): Uint8Array<ArrayBuffer> {
  let bytes = Uint8Array.from(tar);
  // From the end on: what is put in moves what follows.
  const steps = [...input].sort((a, b) => Number(b.header ?? 0) - Number(a.header ?? 0));
  for (const step of steps) {
    const at = starts[Number(step.header) % starts.length];
    if (step.op === "tar") {
      const header = bytes.subarray(at, at + 512);
      const [offset, size] = FIELDS[String(step.field)];
      header.fill(0, offset, offset + size);
      header.set(fromHex(String(step.hex)).subarray(0, size), offset);
      sealTar(header);
    } else if (step.op === "pax") {
      bytes = joined(bytes.subarray(0, at), paxOf(step), bytes.subarray(at));
    }
  }
  return applySteps(bytes, input.filter(({ raw }) => raw === true));
}

/** A pax header with one record, whose length may be wrong. */
function paxOf(step: Step): Uint8Array {
  const text = ` ${step.record}\n`;
  const length = Number(step.length) || text.length + String(text.length + 2).length;
  const body = new TextEncoder().encode(`${length}${text}`);
  const header = new Uint8Array(512);
  const put = (at: number, value: string) => header.set(new TextEncoder().encode(value), at);
  put(0, "pax");
  put(100, "0000644\0");
  put(124, body.length.toString(8).padStart(11, "0"));
  put(156, "x");
  put(257, "ustar\x0000");
  sealTar(header);
  const padding = new Uint8Array((512 - body.length % 512) % 512);
  return joined(header, body, padding);
}

function sealTar(header: Uint8Array): void {
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.set(new TextEncoder().encode(`${sum.toString(8).padStart(6, "0")}\0 `), 148);
}

function entryOf(step: Step): TreeEntry {
  const content = new TextEncoder().encode("hostile");
  const type = TYPES.find((one) => one === step.type) ?? "file";
  return {
    path: String(step.path),
    type,
    permissions: 0o755,
    uid: 0,
    gid: 0,
    mtime: 1n,
    size: type === "file" ? content.length : 0,
    target: String(step.target),
    ...(step.linkTo === undefined ? {} : { linkTo: String(step.linkTo) }),
    read: (): Content => [content],
  };
}

async function* counted(
  entries: AsyncIterable<TreeEntry>,
  watch: Watch,
): AsyncGenerator<TreeEntry> {
  for await (const entry of entries) {
    watch.spend(1, `an entry ${entry.path.slice(0, 50)}`);
    yield entry;
  }
}

async function intoVolume(
  entries: AsyncIterable<TreeEntry>,
  watch: Watch,
  origin: MemoryStore,
): Promise<void> {
  const store = copyOf(origin);
  const volume = Volume.open(new GuardStore(store, watch), { cacheBytes: 0, now: tickingClock() });
  await watch.attempt("import", async () => {
    await volume.exclusive(async (writer) => {
      await importTree(writer, counted(entries, watch), { into: "wide" });
      await writer.checkpoint();
    });
  });
  if (volume.poisoned !== undefined) watch.problem(`Poisoned: ${volume.poisoned.message}`);
  await watch.attempt("checkpoint", () => volume.checkpoint());
  const { findings } = fsck(volume);
  if (findings.length > 0) watch.problem(`Not clean after an import: ${findings[0].problem}`);
  volume.abandon();
}

/** All below a directory but the target: names, types and content, links not followed. */
function listing(directory: string): string {
  const lines: string[] = [];
  const walk = (path: string) => {
    for (const { name, isDirectory, isFile } of Deno.readDirSync(path)) {
      const full = `${path}/${name}`;
      if (full === `${directory}/target`) continue;
      const text = isFile ? Deno.readTextFileSync(full) : "";
      lines.push(`${full} ${isDirectory} ${Deno.lstatSync(full).mode} ${text}`);
      if (isDirectory) walk(full);
    }
  };
  walk(directory);
  return lines.sort().join("\n");
}

/** Removes a tree that may forbid it. */
async function clear(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

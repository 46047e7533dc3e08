import { gzipSync } from "node:zlib";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import {
  entriesFromTar,
  importTree,
  tarFromEntries,
  treeEntries,
  type TreeEntry,
  UnreadableEntry,
} from "../../src/archive/mod.ts";
import { VolcastError } from "../../src/core/mod.ts";
import { fsck } from "../../src/volume/mod.ts";
import { edited, EDITS, entriesOf, newVolume, pictureOf, pictureOfVolume } from "./trees.ts";
import { test } from "../helpers/strict.ts";

const HAS_TAR = await succeeds("tar", "--version");
const HAS_BSDTAR = await succeeds("bsdtar", "--version");
const HAS_XATTRS = await canSetXattrs();

async function succeeds(command: string, ...args: string[]): Promise<boolean> {
  try {
    return (await new Deno.Command(command, { args, stdout: "null", stderr: "null" }).output())
      .success;
  } catch {
    return false;
  }
}

/** Whether the host's tools and the file system of temporary files have extended attributes. */
async function canSetXattrs(): Promise<boolean> {
  const file = await Deno.makeTempFile();
  try {
    return await succeeds("setfattr", "-n", "user.x", "-v", "1", file) &&
      await succeeds("getfattr", file);
  } finally {
    await Deno.remove(file);
  }
}

/** Runs a program of the host. @returns Its standard output. */
async function run(
  command: string,
  args: string[],
  options: { cwd: string; stdin?: Uint8Array },
): Promise<Uint8Array> {
  const child = new Deno.Command(command, {
    args,
    cwd: options.cwd,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    env: { LC_ALL: "C.UTF-8" },
  }).spawn();
  const writer = child.stdin.getWriter();
  const written = writer.write(options.stdin ?? new Uint8Array(0)).then(() => writer.close());
  const [output] = await Promise.all([child.output(), written.catch(() => {})]);
  assert(
    output.success,
    `${command} ${args.join(" ")}: ${new TextDecoder().decode(output.stderr)}`,
  );
  return output.stdout;
}

async function tarOf(entries: Iterable<TreeEntry> | AsyncIterable<TreeEntry>): Promise<Uint8Array> {
  return new Uint8Array(await new Response(tarFromEntries(entries)).arrayBuffer());
}

/** A stream that gives bytes in pieces of a few sizes. */
function inPieces(
  bytes: Uint8Array,
  sizes: readonly number[] = [65_536],
): ReadableStream<Uint8Array> {
  let at = 0;
  let turn = 0;
  return new ReadableStream({
    pull(controller): void {
      if (at >= bytes.length) return controller.close();
      const end = at + sizes[turn++ % sizes.length];
      controller.enqueue(bytes.slice(at, end));
      at = end;
    },
  });
}

async function listOf(bytes: Uint8Array): Promise<TreeEntry[]> {
  return await Array.fromAsync(entriesFromTar(inPieces(bytes)));
}

async function withDirectory(work: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await work(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

function entry(path: string, more: Partial<TreeEntry> = {}): TreeEntry {
  return { path, type: "file", permissions: 0o644, uid: 1, gid: 2, mtime: 5n, size: 0, ...more };
}

test("a tree comes out of a tar archive as it went in, however the stream is cut", async () => {
  await fc.assert(
    fc.asyncProperty(
      EDITS,
      fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 3 }),
      async (edits, sizes) => {
        const tree = edited(new Map(), edits);
        const bytes = await tarOf(entriesOf(tree));
        assertEquals(bytes.length % 512, 0);
        assertEquals(
          await pictureOf(entriesFromTar(inPieces(bytes, sizes))),
          await pictureOf(entriesOf(tree)),
        );
      },
    ),
    { numRuns: 100 },
  );
});

test("a volume comes out of a tar archive with every attribute it has", async () => {
  const [volume, copy] = [await newVolume(), await newVolume()];
  const every = Uint8Array.from({ length: 256 }, (_, i) => i);
  const attributes = {
    xattrs: new Map([
      ["security.capability", every],
      ["user.empty", new Uint8Array(0)],
      ["user.%3D=", Uint8Array.of(10, 0, 61)],
      ["user.große", every],
      ["SCHILY.acl.access", new TextEncoder().encode("user::rw-,user:7:r--")],
      ["system.posix_acl_access", every],
    ]),
    securityDescriptor: every,
  };
  const long = "n".repeat(200);
  const entries: TreeEntry[] = [
    entry("", { type: "directory", permissions: 0o1777, mtime: 3n, attributes }),
    entry("a", {
      permissions: 0o6755,
      uid: 2 ** 32 - 1,
      gid: 2 ** 31,
      mtime: -1_500_000_001n,
      attributes,
      dos: 2 ** 32 - 1,
    }),
    entry("b", { mtime: 1_700_000_000_123_456_789n, atime: 7n, btime: -7n }),
    entry("c", { mtime: 8n ** 11n * 1_000_000_000n, atime: 1n }),
    entry(long, { type: "directory" }),
    entry(`${long}/ü${long}`, { type: "symlink", target: `/${long}/ü`, size: 203 }),
    entry("d1", { type: "charDevice", rdev: 0x0105 }),
    entry("d2", { type: "blockDevice", rdev: 2 ** 40 + 5 }),
    entry("d3", { type: "fifo" }),
    entry("d4", { type: "socket" }),
    entry("e", { linkTo: `${long}/ü${long}`, type: "symlink" }),
  ];
  await volume.exclusive((writer) => importTree(writer, entries));
  await volume.checkpoint();
  const fs = volume.fileSystem(volume.current);
  const bytes = await tarOf(treeEntries(fs));
  await copy.exclusive((writer) => importTree(writer, entriesFromTar(inPieces(bytes))));
  await copy.checkpoint();
  const copied = copy.fileSystem(copy.current);
  assertEquals(await pictureOfVolume(copied), await pictureOfVolume(fs));
  const times = (of: typeof fs) =>
    [...treeEntries(of)].map(({ path, mtime, atime, btime }) => ({ path, mtime, atime, btime }));
  assertEquals(times(copied), times(fs));
  assertEquals(fsck(copy).findings, []);
  await volume.close();
  await copy.close();
});

test("entriesFromTar() keeps unchanged files as headers with their size", async () => {
  const bytes = await tarOf([entry("a", { size: 2 ** 40, unchanged: true }), entry("b")]);
  const [a, b] = await listOf(bytes);
  assertEquals([a.size, a.unchanged, a.read], [2 ** 40, true, undefined]);
  assertEquals(b.unchanged, undefined);
});

test("tarFromEntries() leaves out what cannot be read, and fails on a changed file", async () => {
  const unreadable = () => {
    throw new UnreadableEntry("gone");
  };
  const bytes = await tarOf([entry("a", { size: 5, read: unreadable }), entry("b")]);
  assertEquals((await listOf(bytes)).map(({ path }) => path), ["b"]);
  for (const size of [2, 4]) {
    const read = () => [new Uint8Array(3)];
    await assertRejects(() => tarOf([entry("a", { size, read })]), VolcastError, "announced");
  }
});

test("tarFromEntries() ends with the reason of its signal", async () => {
  const controller = new AbortController();
  const endless = function* (): Generator<TreeEntry> {
    for (let i = 0;; i++) {
      if (i === 5000) controller.abort(new Error("stopped"));
      yield entry(`f${i}`);
    }
  };
  const stream = tarFromEntries(endless(), { signal: controller.signal });
  await assertRejects(() => new Response(stream).arrayBuffer(), Error, "stopped");
});

test("entriesFromTar() refuses what is no archive, or not all of one", async () => {
  const good = await tarOf([
    entry("a", { size: 700, read: () => [new Uint8Array(700).fill(1)] }),
    entry("b"),
  ]);
  for (let length = 0; length < good.length - 512; length += 100) {
    const error = await assertRejects(() => listOf(good.slice(0, length)), VolcastError);
    assertEquals(error.kind, "damaged", `at ${length}`);
  }
  const garbage = [
    ["no header", new Uint8Array(2048).fill(65)],
    ["no header", new TextEncoder().encode("<html>".repeat(200))],
    ["no end", new Uint8Array(0)],
  ] as const;
  for (const [reason, bytes] of garbage) {
    await assertRejects(() => listOf(bytes), VolcastError, reason);
  }
  const gzip = new Uint8Array(1024);
  gzip.set(gzipSync(good).subarray(0, 1024));
  const error = await assertRejects(() => listOf(gzip), VolcastError);
  assertStringIncludes(error.hint, "gzip -d");
});

test("entriesFromTar() throws nothing but VolcastError, whatever the bytes", async () => {
  const good = await tarOf([
    entry("ü", { size: 700, dos: 7, atime: 5n, read: () => [new Uint8Array(700).fill(1)] }),
    entry("l", { type: "symlink", target: "x".repeat(150), size: 150 }),
  ]);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 4 }),
      fc.boolean(),
      async (changes, repair) => {
        const bytes = good.slice();
        for (const [at, value] of changes) bytes[at] = value;
        if (repair) repairChecksums(bytes);
        try {
          for await (const { read } of entriesFromTar(inPieces(bytes))) {
            for await (const _ of read?.() ?? []);
          }
        } catch (error) {
          assert(error instanceof VolcastError, String(error));
        }
      },
    ),
    { numRuns: 1000 },
  );
});

/** Gives each block that looks like a header its checksum, so that what it says is looked at. */
function repairChecksums(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += 512) {
    const block = bytes.subarray(at, at + 512);
    if (String.fromCharCode(...block.subarray(257, 262)) !== "ustar") continue;
    block.fill(32, 148, 156);
    const sum = block.reduce((total, byte) => total + byte, 0);
    block.set(new TextEncoder().encode(sum.toString(8).padStart(6, "0") + "\0 "), 148);
  }
}

test("a hostile archive does not reach beyond the top", async () => {
  const volume = await newVolume();
  await volume.exclusive((writer) => importTree(writer, [entry("outside")]));
  const hostile: TreeEntry[][] = [
    [entry("../outside2")],
    [entry("/outside2")],
    [entry("d", { type: "symlink", target: "..", size: 2 }), entry("d/outside2")],
    [entry("a", { linkTo: "../outside" })],
    [entry("a", { linkTo: "/outside" })],
    [
      entry("d", { type: "symlink", target: "../outside", size: 10 }),
      entry("a", { linkTo: "d/x" }),
    ],
  ];
  for (const entries of hostile) {
    const bytes = await tarOf(entries);
    const error = await assertRejects(
      () =>
        volume.exclusive((writer) =>
          importTree(writer, entriesFromTar(inPieces(bytes)), { into: "in" })
        ),
      VolcastError,
    );
    assertEquals(error.kind, "usage");
  }
  await volume.checkpoint();
  const names = [...volume.fileSystem(volume.current).list(2)].map(({ name }) => name);
  assertEquals(names, ["in", "outside"]);
  assertEquals(fsck(volume).findings, []);
  await volume.close();
});

// --- other programs -----------------------------------------------------------------------------

/** Makes a tree with the host's tools and says what an archive of it must hold. */
async function makeHostTree(
  top: string,
  { old = "1960-05-05 00:00:00.25Z", xattr }: { old?: string; xattr?: string | undefined },
): Promise<void> {
  const script = `
    mkdir -p t/d t/${"long".repeat(30)}; cd t
    printf hello > a; ln a d/b; ln -s ../a d/s; ln -s ${"x".repeat(150)} s2; mkfifo p
    head -c 300000 /dev/urandom > d/big; printf y > "d/ü %=name"; printf z > ${"long".repeat(30)}/${
    "n".repeat(140)
  }
    chmod 4711 a; chmod 1770 d
    touch -d '2001-01-01 00:00:00.123456789Z' a; touch -d '${old}' d/big
    touch -h -d '2005-01-01 00:00:00.5Z' s2
    touch -d '2001-01-01 00:00:00.000000001Z' d`;
  await run("sh", ["-c", script], { cwd: top });
  if (xattr === undefined) return;
  await run("setfattr", ["-n", "user.bin", "-v", "0x00ff0a3d80", "t/a"], { cwd: top });
  await run("setfattr", ["-n", xattr, "-v", "text", "t/d"], { cwd: top });
}

for (const [format, xattr] of [["pax"], ["pax", "user.x=y%z"], ["gnu"], ["ustar"]]) {
  Deno.test({
    sanitizeOps: true,
    sanitizeResources: true,
    name: `entriesFromTar() reads GNU tar's --format=${format}${xattr ? " with --xattrs" : ""}`,
    ignore: !HAS_TAR || (xattr !== undefined && !HAS_XATTRS),
    fn: () =>
      withDirectory(async (top) => {
        await makeHostTree(top, { xattr });
        const exclude = format === "ustar"
          ? ["--exclude=big", "--exclude=s2", "--exclude=long*"]
          : [];
        const options = format === "pax" ? ["--xattrs", "--acls"] : [];
        const bytes = await run("tar", [
          `--format=${format}`,
          ...options,
          ...exclude,
          "-C",
          "t",
          "-c",
          ".",
        ], { cwd: top });
        const entries = new Map<string, TreeEntry & { bytes: number[] }>();
        for await (const found of entriesFromTar(inPieces(bytes, [1000, 7]))) {
          const content: number[] = [];
          for await (const piece of found.read?.() ?? []) {
            for (const byte of piece) content.push(byte);
          }
          entries.set(found.path, { ...found, bytes: content });
        }
        const long = "long".repeat(30);
        const a = entries.get("a")!;
        const b = entries.get("d/b")!;
        const [first, second] = a.linkTo === undefined ? [a, b] : [b, a];
        assertEquals(second.linkTo, first.path);
        assertEquals(String.fromCharCode(...first.bytes), "hello");
        assertEquals(first.permissions, 0o4711);
        const ns = format === "pax" ? 123_456_789n : 0n;
        assertEquals(first.mtime, 978_307_200_000_000_000n + ns);
        assertEquals(entries.get("")!.type, "directory");
        assertEquals(entries.get("d")!.permissions, 0o1770);
        assertEquals(entries.get("d/s")!.target, "../a");
        assertEquals(entries.get("p")!.type, "fifo");
        assertEquals(entries.get("d/ü %=name")!.bytes, [121]);
        assertEquals(
          entries.get(`${long}/${"n".repeat(140)}`)?.bytes,
          format === "ustar" ? undefined : [122],
        );
        if (format === "ustar") return;
        assertEquals(entries.get("s2")!.target, "x".repeat(150));
        const big = entries.get("d/big")!;
        assertEquals(big.bytes, [...await Deno.readFile(`${top}/t/d/big`)]);
        const seconds = BigInt(Date.UTC(1960, 4, 5)) * 1_000_000n;
        assertEquals(big.mtime, seconds + (format === "pax" ? 250_000_000n : 0n));
        const xattrs = first.attributes!.xattrs;
        if (xattr === undefined) return assertEquals(xattrs.size, 0);
        assertEquals([...xattrs.get("user.bin")!], [0, 255, 10, 61, 128]);
        const text = entries.get("d")!.attributes!.xattrs.get(xattr)!;
        assertEquals(String.fromCharCode(...text), "text");
      }),
  });
}

// libarchive takes the fraction of a time before 1970 for one after it, and `=` in names of
// extended attributes as it is written.
const PROGRAMS = [
  { program: "tar", title: "GNU tar", isThere: HAS_TAR, xattr: "user.x=y%z" },
  {
    program: "bsdtar",
    title: "bsdtar",
    isThere: HAS_BSDTAR,
    xattr: "user.x",
    old: "1960-05-05 00:00:00Z",
  },
];

for (const { program, title, isThere, xattr, ...plain } of PROGRAMS) {
  testExtracting(title, program, { ignore: !isThere, tree: plain });
  testExtracting(`${title} with extended attributes`, program, {
    ignore: !isThere || !HAS_XATTRS,
    tree: { ...plain, xattr },
  });
}

function testExtracting(
  title: string,
  program: string,
  { ignore, tree }: { ignore: boolean; tree: Parameters<typeof makeHostTree>[1] },
): void {
  Deno.test({
    sanitizeOps: true,
    sanitizeResources: true,
    name: `${title} extracts what tarFromEntries() writes, and its archive is read back equal`,
    ignore,
    fn: () =>
      withDirectory(async (top) => {
        await makeHostTree(top, tree);
        const source = await run("tar", ["--format=pax", "--xattrs", "-C", "t", "-c", "."], {
          cwd: top,
        });
        const volume = await newVolume();
        await volume.exclusive((writer) =>
          importTree(writer, entriesFromTar(inPieces(source)), { prune: true })
        );
        await volume.checkpoint();
        const bytes = await tarOf(treeEntries(volume.fileSystem(volume.current)));
        await Deno.mkdir(`${top}/out`);
        const extract = program === "tar"
          ? ["--warning=no-unknown-keyword", "--xattrs", "-xpf", "-"]
          : ["-xpf", "-"];
        await run(program, extract, { cwd: `${top}/out`, stdin: bytes });
        // bsdtar leaves the time of the top as it is.
        await run("touch", ["-r", "t", "out"], { cwd: top });
        const facts = "%P %y %m %s %T@ %l %n\\n";
        const seen = async (path: string) =>
          new TextDecoder().decode(
            await run("find", [
              path,
              "-type",
              "d",
              "-printf",
              "%P %y %m %T@\\n",
              "-o",
              "-printf",
              facts,
            ], { cwd: top }),
          )
            .split("\n").sort();
        assertEquals(await seen("out"), await seen("t"));
        await run("diff", ["-r", "--no-dereference", "-x", "p", "t", "out"], { cwd: top });
        if (tree.xattr !== undefined) {
          const dump = async (path: string) => {
            const options = ["-R", "-h", "-d", "-m", "user", "--", "."];
            const out = await run("getfattr", options, { cwd: `${top}/${path}` });
            // In the order of the directory, which is the file system's own.
            return new TextDecoder().decode(out).split("\n\n").sort();
          };
          const dumped = await dump("t");
          // As getfattr shows a name.
          const shown = tree.xattr.replace("=", "\\075");
          assert(dumped.some((record) => record.includes(shown)), dumped.join("\n"));
          assertEquals(await dump("out"), dumped);
        }
        // And back again from what the other program packs.
        const again = await run(program, [
          "--format=pax",
          ...(program === "tar" ? ["--xattrs"] : []),
          "-C",
          "out",
          "-cf",
          "-",
          ".",
        ], { cwd: top });
        const report = await volume.exclusive((writer) =>
          importTree(writer, entriesFromTar(inPieces(again)), { prune: true })
        );
        assertEquals([report.created, report.changed, report.removed], [0, 0, 0]);
        await volume.close();
      }),
  });
}

Deno.test({
  sanitizeOps: true,
  sanitizeResources: true,
  name: "entriesFromTar() refuses GNU's sparse members with a hint",
  ignore: !HAS_TAR,
  fn: () =>
    withDirectory(async (top) => {
      await run("sh", ["-c", "truncate -s 1M s; printf x >> s; truncate -s 3M s"], { cwd: top });
      for (const format of ["gnu", "pax"]) {
        const bytes = await run("tar", ["--sparse", `--format=${format}`, "-c", "s"], { cwd: top });
        const error = await assertRejects(() => listOf(bytes), VolcastError);
        assertEquals(error.kind, "unsupported");
        assertStringIncludes(error.hint, "--sparse");
      }
    }),
});

test("sizes of more than 8 GiB are read and written", async () => {
  // The header alone: the body is asked for and not sent.
  const size = 9 * 2 ** 30;
  const stream = tarFromEntries([
    entry("a", {
      size,
      read: function* () {
        for (;;) yield new Uint8Array(2 ** 20);
      },
    }),
  ]);
  const source = entriesFromTar(stream);
  const { value } = await source.next();
  assertEquals(value!.size, size);
  await source.return(undefined);
});

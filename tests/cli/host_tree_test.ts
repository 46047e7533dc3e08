import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  entriesFromTar,
  importTree,
  tarFromEntries,
  treeEntries,
  type TreeEntry,
} from "../../src/archive/mod.ts";
import { hostEntries, WalkReport } from "../../src/cli/host_read.ts";
import { writeHostTree } from "../../src/cli/host_write.ts";
import { VolcastError } from "../../src/core/mod.ts";
import { fsck, type Volume } from "../../src/volume/mod.ts";
import {
  edited,
  EDITS,
  entriesOf,
  newVolume,
  pictureOf,
  pictureOfVolume,
} from "../archive/trees.ts";
import { test } from "../helpers/strict.ts";

const MS = 1_000_000n;
const IS_ROOT = Deno.uid() === 0;

async function withDirectory(work: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await work(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

async function shell(cwd: string, script: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-ec", script],
    cwd,
    env: { LC_ALL: "C.UTF-8" },
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

function entry(path: string, more: Partial<TreeEntry> = {}): TreeEntry {
  const own = { uid: Deno.uid()!, gid: Deno.gid()! };
  return { path, type: "file", permissions: 0o644, ...own, mtime: 5000n * MS, size: 0, ...more };
}

function file(path: string, text: string, more: Partial<TreeEntry> = {}): TreeEntry {
  const content = new TextEncoder().encode(text);
  return entry(path, { size: content.length, read: () => [content], ...more });
}

/** Lines that say all of a host tree that can be said. */
function seen(path: string): Promise<string> {
  return shell(
    path,
    `find . -printf '%P %y %m %U:%G %n %T@ %l ' -type f -exec sha256sum {} \\; -o -printf '\\n' | sed 's/ \\.\\/.*//' | sort`,
  );
}

test("a host directory comes out of a volume as it went in", async () => {
  await withDirectory(async (top) => {
    await shell(
      top,
      `
      mkdir -p t/d/e t/empty; cd t
      printf hello > a; ln a d/b; ln -s ../a d/s; ln -s nowhere dangling; : > d/nothing
      head -c 2500000 /dev/urandom > d/e/big; printf x > 'd/ü %=name'
      truncate -s 5M sparse; printf end >> sparse; truncate -s 6M sparse
      chmod 4755 a; chmod 2770 d; chmod 1777 empty; chmod 0 d/nothing
      touch -d '2001-01-01 00:00:00.123Z' a d/e; touch -h -d '2005-01-01 00:00:00.5Z' d/s dangling
      touch -d '2002-02-02 02:02:02.02Z' sparse 'd/ü %=name' d/e/big d/nothing empty d .`,
    );
    const volume = await newVolume();
    await volume.exclusive((writer) =>
      importTree(writer, hostEntries(`${top}/t`), { prune: true })
    );
    await volume.checkpoint();
    assertEquals(fsck(volume).findings, []);
    const fs = volume.fileSystem(volume.current);
    const report = await writeHostTree(treeEntries(fs), `${top}/out`);
    assertEquals([report.files, report.hardLinks, report.symlinks], [5, 1, 2]);
    assertEquals(await seen(`${top}/out`), await seen(`${top}/t`));
    const blocks = (path: string) => Deno.statSync(path).blocks!;
    assert(blocks(`${top}/out/sparse`) <= blocks(`${top}/t/sparse`) + 8);
    // Again over the first, and as an import that finds nothing to do.
    await writeHostTree(treeEntries(fs), `${top}/out`, { overwrite: true });
    assertEquals(await seen(`${top}/out`), await seen(`${top}/t`));
    await volume.exclusive(async (writer) => {
      const again = await importTree(writer, hostEntries(`${top}/out`), { prune: true });
      assertEquals([again.created, again.changed, again.removed], [0, 0, 0]);
      assertEquals(writer.isDirty, false);
    });
    await volume.close();
  });
});

test("random trees go to the host and back, release over release", async () => {
  await fc.assert(
    fc.asyncProperty(EDITS, EDITS, (first, second) =>
      withDirectory(async (top) => {
        const dress = (one: TreeEntry): TreeEntry => ({
          ...one,
          mtime: one.mtime / MS * MS,
          uid: Deno.uid()!,
          gid: Deno.gid()!,
          permissions: one.type === "symlink" ? 0o777 : one.permissions,
          attributes: { xattrs: new Map() },
          dos: 0,
        });
        const isMade = ({ type }: TreeEntry) => type !== "fifo" && type !== "charDevice";
        let tree = edited(new Map(), first);
        for (const edits of [[], second]) {
          tree = edited(tree, edits);
          const entries = [...entriesOf(tree, dress)].filter(isMade);
          const out = `${top}/${edits === second ? "2" : "1"}`;
          await writeHostTree(entries, out);
          assertEquals(await pictureOf(hostEntries(out)), await pictureOf(entries));
        }
      })),
    { numRuns: 25 },
  );
});

test("hostEntries() reports what it must leave out", async () => {
  await withDirectory(async (top) => {
    await shell(
      top,
      `printf x > a; printf y > "$(printf 'n\\377')"; ln -s "$(printf 't\\376')" s; mkdir d gone; printf z > d/z; ln d/z link; printf w > gone/w`,
    );
    const report = new WalkReport();
    const paths: string[] = [];
    const volume = await newVolume();
    const watched = function* (): Generator<TreeEntry> {
      for (const one of hostEntries(top, { report })) {
        paths.push(one.path);
        // They vanish between the walk and the reading.
        if (one.path === "d/z") Deno.removeSync(`${top}/d/z`);
        if (one.path === "gone") Deno.removeSync(`${top}/gone`, { recursive: true });
        yield one;
      }
    };
    const done = await volume.exclusive((writer) => importTree(writer, watched()));
    await volume.checkpoint();
    // The other name of what is gone is a file of its own then.
    assertEquals(paths, ["", "a", "d", "d/z", "gone", "link"]);
    assertEquals(report.skipped.items.map(({ path }) => path).sort(), [
      "d/z",
      "gone",
      "n\ufffd",
      "s",
    ]);
    assertEquals(
      report.skipped.items.find(({ path }) => path === "n\ufffd")!.reason,
      "its name is not UTF-8",
    );
    assertEquals(done.skipped.map(({ path }) => path), ["d/z"]);
    assertEquals(fsck(volume).findings, []);
    await volume.close();
  });
});

test("what the walk cannot read is left out of an archive too", async () => {
  await withDirectory(async (top) => {
    await shell(top, "printf x > a; printf y > b; printf z > c");
    const report = new WalkReport();
    const entries = hostEntries(top, { report });
    const first = [entries.next().value!, entries.next().value!];
    Deno.removeSync(`${top}/b`);
    const rest = function* (): Generator<TreeEntry> {
      yield* first;
      yield* entries;
    };
    const found = await Array.fromAsync(entriesFromTar(tarFromEntries(rest())));
    assertEquals(found.map(({ path }) => path), ["", "a", "c"]);
    assertEquals(report.skipped.count, 1);
  });
});

test("hostEntries() needs a directory", () => {
  for (const [path, kind] of [["/dev/null", "usage"], ["/nowhere/at/all", "not-found"]]) {
    const error = assertThrows(() => [...hostEntries(path)], VolcastError);
    assertEquals(error.kind, kind);
  }
});

test("a file that changes while it is imported makes the import fail", async () => {
  await withDirectory(async (top) => {
    await shell(top, "head -c 3000000 /dev/zero > a");
    const volume: Volume = await newVolume();
    const entries = function* (): Generator<TreeEntry> {
      for (const one of hostEntries(top)) {
        const read = one.read;
        yield read === undefined ? one : {
          ...one,
          *read() {
            for (const chunk of read() as Iterable<Uint8Array>) {
              yield chunk;
              Deno.truncateSync(`${top}/a`, 100);
            }
          },
        };
      }
    };
    const error = await assertRejects(
      () => volume.exclusive((writer) => importTree(writer, entries())),
      VolcastError,
    );
    assertEquals(error.kind, "io");
    assert(error.message.includes('"a"'));
    await volume.close();
    volume.abandon();
  });
});

test("writeHostTree() never writes outside of its directory", async () => {
  await withDirectory(async (top) => {
    await shell(top, "mkdir outside; printf safe > outside/f");
    const link = { type: "symlink", target: "../outside", size: 10 } as const;
    const hostile: TreeEntry[][] = [
      [file("../outside/f", "bad")],
      [file("/outside/f", "bad")],
      [entry("l", link), file("l/f", "bad")],
      [entry("d", { type: "directory" }), entry("d", link), file("d/f", "bad")],
      [
        entry("d", { type: "directory" }),
        entry("d/d", { type: "directory" }),
        entry("d", link),
        file("d/d/f", "bad"),
      ],
      [entry("x", { linkTo: "../outside/f" }), file("x", "bad")],
      [entry("l", link), entry("x", { linkTo: "l/f" })],
      [entry("l", { ...link, target: "../outside/new" }), file("l", "bad"), file("l/x", "bad")],
    ];
    for (const [i, entries] of hostile.entries()) {
      for (const overwrite of [false, true]) {
        await assertRejects(
          () => writeHostTree(entries, `${top}/out${i}${overwrite}`, { overwrite }),
          VolcastError,
        );
      }
    }
    assertEquals(await shell(top, "ls outside; cat outside/f"), "f\nsafe");
  });
});

test("writeHostTree() over an earlier export replaces what has the same names", async () => {
  await withDirectory(async (top) => {
    const out = `${top}/out`;
    await shell(
      top,
      "mkdir -p out/a outside out/keep; printf old > out/b; ln -s ../outside out/d; printf x > out/a/x; printf k > out/keep/k",
    );
    const entries = [
      entry("", { type: "directory", permissions: 0o755 }),
      file("a", "now a file"),
      file("b", "new"),
      entry("d", { type: "directory", permissions: 0o700 }),
      file("d/f", "inside"),
      entry("h", { linkTo: "b" }),
    ];
    const error = await assertRejects(() => writeHostTree(entries, out), VolcastError);
    assertEquals(error.kind, "exists");
    await using before = await Deno.open(`${out}/b`);
    for (let round = 0; round < 2; round++) await writeHostTree(entries, out, { overwrite: true });
    assertEquals(
      await shell(out, "cat a b d/f h keep/k; ls -A; ls ../outside"),
      "now a filenewinsidenewka\nb\nd\nh\nkeep\n",
    );
    // Whoever has the old file open still reads the old content.
    const buffer = new Uint8Array(10);
    assertEquals(before.readSync(buffer), 3);
    assertEquals(new TextDecoder().decode(buffer.subarray(0, 3)), "old");
  });
});

test("writeHostTree() counts what the host does not take", async () => {
  await withDirectory(async (top) => {
    const report = await writeHostTree([
      entry("p", { type: "fifo" }),
      entry("q", { linkTo: "p", type: "fifo" }),
      entry("c", { type: "charDevice", rdev: 261 }),
      file("f", "x", { attributes: { xattrs: new Map([["user.a", Uint8Array.of(1)]]) } }),
      file("g", "x", { dos: 2 }),
      file("h", "x", { uid: 12345, gid: 54321, permissions: 0o6755 }),
    ], `${top}/out`);
    assertEquals([report.notMade, report.attributesLost, report.files], [3, 2, 3]);
    assertEquals(report.skipped.items.map(({ path }) => path), ["p", "q", "c"]);
    assertEquals(report.ownersLost, IS_ROOT ? 0 : 1);
    const { uid, gid, mode } = await Deno.lstat(`${top}/out/h`);
    if (IS_ROOT) assertEquals([uid, gid, mode! & 0o7777], [12345, 54321, 0o6755]);
  });
});

test("writeHostTree() leaves nothing of a file that did not come whole", async () => {
  await withDirectory(async (top) => {
    for (const overwrite of [false, true]) {
      await assertRejects(
        () => writeHostTree([file("f", "abc", { size: 9 })], `${top}/${overwrite}`, { overwrite }),
        VolcastError,
        "announced",
      );
      assertEquals(await shell(`${top}/${overwrite}`, "ls -A"), "");
    }
  });
});

test("writeHostTree() takes content that is still to come, one file after the other", async () => {
  await withDirectory(async (top) => {
    let isWriting = false;
    const slow = (path: string, parts: (string | Error)[], size: number): TreeEntry => ({
      ...file(path, "", { size }),
      async *read() {
        assert(!isWriting, "the file before was not waited for");
        isWriting = true;
        for (const part of parts) {
          await Promise.resolve();
          if (part instanceof Error) throw part;
          yield new TextEncoder().encode(part);
        }
        isWriting = false;
      },
    });
    const whole = [
      slow("a", ["1", "23"], 3),
      slow("b", [], 0),
      file("c", "now"),
      slow("d", ["4"], 1),
    ];
    async function* later(entries: TreeEntry[]) {
      for (const one of entries) yield await Promise.resolve(one);
    }
    for (const [name, entries] of Object.entries({ here: whole, later: later(whole) })) {
      const { files, bytesWritten } = await writeHostTree(entries, `${top}/${name}`);
      assertEquals([files, bytesWritten], [4, 7]);
      assertEquals(await shell(`${top}/${name}`, "cat a b c d; ls -A"), "123now4a\nb\nc\nd\n");
    }
    const cut = [slow("f", ["1", new Error("the line was cut")], 2), slow("f", ["1"], 2)];
    for (const [i, one] of cut.entries()) {
      for (const overwrite of [false, true]) {
        isWriting = false;
        const out = `${top}/${i}${overwrite}`;
        await assertRejects(
          () => writeHostTree([one], out, { overwrite }),
          VolcastError,
          'Cannot write "f": ',
        );
        assertEquals(await shell(out, "ls -A"), "");
      }
    }
  });
});

test("a volume's tree goes through the host equal to what an import of it gives", async () => {
  await withDirectory(async (top) => {
    await shell(
      top,
      "mkdir -p t/a/b; for i in 1 2 3; do printf $i > t/a/b/$i; done; ln t/a/b/1 t/z",
    );
    const [one, two] = [await newVolume(), await newVolume()];
    await one.exclusive((writer) => importTree(writer, hostEntries(`${top}/t`)));
    await one.checkpoint();
    await writeHostTree(treeEntries(one.fileSystem(one.current)), `${top}/out`);
    await two.exclusive((writer) => importTree(writer, hostEntries(`${top}/out`)));
    await two.checkpoint();
    assertEquals(
      await pictureOfVolume(two.fileSystem(two.current)),
      await pictureOfVolume(one.fileSystem(one.current)),
    );
    await one.close();
    await two.close();
  });
});

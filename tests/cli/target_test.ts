import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { TreeEntry } from "../../src/archive/mod.ts";
import { hostEntries } from "../../src/cli/host_read.ts";
import { openTarget, type Target } from "../../src/cli/target.ts";
import { VolcastError } from "../../src/core/mod.ts";
import { startServer } from "../../src/http/mod.ts";
import { Node } from "../../src/replication/mod.ts";
import { createVolumeFile, fsck, openVolumeFile } from "../../src/volume/mod.ts";
import { ok, volcast } from "../helpers/cli.ts";
import { pictureOf } from "../archive/trees.ts";
import { test } from "../helpers/strict.ts";

const TOKEN = "test-token";

/** A target with what is behind it. */
interface Fixture {
  readonly target: Target;
  readonly directory: string;
}

/** The same for a file and for a server. */
const MAKES: Record<string, (work: (fixture: Fixture) => Promise<void>) => Promise<void>> = {
  path: (work) =>
    withVolume(async (path, directory) => {
      await using target = await openTarget(path);
      await work({ target, directory });
    }),
  url: (work) =>
    withVolume((path, directory) =>
      served(path, async (url) => {
        await using target = await openTarget(url, { token: TOKEN });
        await work({ target, directory });
      })
    ),
};

async function withVolume(work: (path: string, directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/site.vol`;
  try {
    await (await createVolumeFile(path, 64 * 2 ** 20)).close();
    await work(path, directory);
    const volume = openVolumeFile(path);
    assertEquals(fsck(volume).findings, []);
    await volume.close();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function served(path: string, work: (url: string) => Promise<void>): Promise<void> {
  const volume = openVolumeFile(path);
  const server = startServer(new Node({ name: "origin", path, volume }), {
    listen: { hostname: "127.0.0.1", port: 0 },
    tokens: { admin: TOKEN, sites: new Map() },
    version: "test",
    log: () => {},
  });
  volume.noteOwner(server.url);
  try {
    await work(server.url);
  } finally {
    await server.stop();
    await volume.close();
  }
}

function file(path: string, text: string, more: Partial<TreeEntry> = {}): TreeEntry {
  const content = new TextEncoder().encode(text);
  return {
    path,
    type: "file",
    permissions: 0o644,
    uid: 1,
    gid: 2,
    mtime: 1_000_000_001n,
    size: content.length,
    attributes: { xattrs: new Map([["user.note", Uint8Array.of(0, 255)]]) },
    read: () => [content],
    ...more,
  };
}

function directory(path: string): TreeEntry {
  return {
    path,
    type: "directory",
    permissions: 0o755,
    uid: 1,
    gid: 2,
    mtime: 2n,
    size: 0,
    attributes: { xattrs: new Map() },
  };
}

function release(version: string): TreeEntry[] {
  return [
    directory(""),
    file("a", `a ${version}`, { mtime: BigInt(version.length) }),
    directory("d"),
    file("d/big", "same ".repeat(500_000)),
    file("d/b", "b"),
    file("l", "", { linkTo: "d/b" }),
    file("s", "", { type: "symlink", target: "../d/b", size: 6, read: undefined }),
  ];
}

async function textOf(stream: ReadableStream<Uint8Array>): Promise<string> {
  return await new Response(stream as ReadableStream<Uint8Array<ArrayBuffer>>).text();
}

for (const [kind, withTarget] of Object.entries(MAKES)) {
  test(`a ${kind} target publishes releases, and gives each back as it was`, () =>
    withTarget(async ({ target }) => {
      const first = await target.publish(release("1"), { as: "one" });
      assertEquals([first.report.created, first.snapshot.name], [6, "one"]);
      assertEquals(first.snapshot.pointers, ["master"]);
      const second = await target.publish([...release("12"), file("new", "new")], {
        as: "two",
        pointer: "staging",
      });
      assertEquals([second.report.created, second.report.changed, second.report.removed], [
        1,
        2,
        0,
      ]);
      // What is there already is not sent again.
      assertEquals(second.report.bytesRead, 4 + 3);
      assertEquals((await target.snapshots()).map(({ name, pointers }) => [name, ...pointers]), [[
        "one",
        "master",
      ], ["two", "staging"]]);
      assertEquals(await pictureOf(target.entries()), await pictureOf(release("1")));
      assertEquals(
        await pictureOf(target.entries("two")),
        await pictureOf([...release("12"), file("new", "new")]),
      );
      const paths = (await Array.fromAsync(target.entries("two", "d"))).map(({ path }) => path);
      assertEquals(paths, ["", "b", "big"]);
    }));

  test(`a ${kind} target imports below a directory, again without sending what is there`, () =>
    withTarget(async ({ target }) => {
      const first = await target.importTree(release("1"), { into: "/deep/er" });
      assertEquals(first.files, 3);
      const again = await target.importTree(release("1"), { into: "deep/er", prune: true });
      assertEquals([again.unchanged, again.bytesRead], [7, 0]);
      const checked = await target.importTree(release("1"), { into: "deep/er", checksum: true });
      assertEquals([checked.unchanged, checked.bytesRead > 2_000_000], [7, true]);
      const less = await target.importTree(release("1").slice(0, 2), {
        into: "deep/er",
        prune: true,
      });
      assertEquals(less.removed, 5);
    }));

  test(`a ${kind} target says what there is`, () =>
    withTarget(async ({ target }) => {
      await target.importTree(release("1"));
      const made = await target.createSnapshot("s1", { pointers: ["master"] });
      assertEquals([made.name, made.pointers], ["s1", ["master"]]);
      await target.importTree([file("z", "z")]);
      await target.createSnapshot("s2");
      assertEquals((await target.setPointer("p", "s2")).snapshotName, "s2");
      assertEquals(
        (await target.pointers()).map(({ name, snapshotName }) => `${name}=${snapshotName}`).sort(),
        ["master=s1", "p=s2"],
      );
      const plan = await target.plan("s2 - s1");
      assert(plan.blocks > 0 && plan.blockBytes === plan.blocks * 4096);
      const image = await target.image({ select: "s2 - s1" });
      assertEquals(image.byteCount, plan.bytes);
      assertEquals(
        (await new Response(image.stream as ReadableStream<Uint8Array<ArrayBuffer>>).bytes())
          .length,
        plan.bytes,
      );
      const { volume } = await target.status() as { volume: { role: string } };
      assertEquals(volume.role, "origin");
      const info = await target.stat("/d/b");
      assertEquals([info.type, info.path, info.name, info.size, info.nlink, info.mtime], [
        "file",
        "/d/b",
        "b",
        1,
        2,
        1_000_000_001n,
      ]);
      assertEquals(info.xattrs, { "user.note": "AP8=" });
      const link = await target.stat("s");
      assertEquals([link.type, link.target], ["symlink", "../d/b"]);
      assertEquals((await target.stat("/")).type, "directory");
      const list = async (path: string, ref?: string) =>
        (await Array.fromAsync(target.list(path, ref))).map((one) => one.path);
      assertEquals(await list("/"), ["/a", "/d", "/l", "/s"]);
      assertEquals(await list("", "s2"), ["/a", "/d", "/l", "/s", "/z"]);
      assertEquals(await list("/d"), ["/d/b", "/d/big"]);
      assertEquals(await list("a"), ["/a"]);
      assertEquals(await textOf(await target.read("/z", "active")), "z");
      assertEquals((await textOf(await target.read("d/big"))).length, 2_500_000);
    }));

  test(`a ${kind} target pages through large directories`, () =>
    withTarget(async ({ target }) => {
      const many = Array.from(
        { length: 2500 },
        (_, i) => file(`f${String(i).padStart(4, "0")}`, `${i}`),
      );
      await target.importTree(many);
      const names = (await Array.fromAsync(target.list("/"))).map(({ name }) => name);
      assertEquals(names, many.map(({ path }) => path));
    }));

  test(`a ${kind} target gives typed errors`, () =>
    withTarget(async ({ target }) => {
      await target.publish(release("1"), { as: "one" });
      const kinds: [string, () => Promise<unknown>][] = [
        ["exists", () => target.publish(release("2"), { as: "one" })],
        ["usage", () => target.publish(release("2"), { as: "not a name" })],
        ["usage", () => target.importTree([file("../x", "x")])],
        ["not-found", () => target.stat("/none")],
        ["not-found", () => target.read("/none")],
        ["usage", () => target.read("/d")],
        ["not-found", () => Array.fromAsync(target.entries("none"))],
        ["not-found", () => target.plan("none")],
        ["usage", () => target.plan("one -")],
        ["held", () => target.deleteSnapshot("one")],
        ["not-found", () => target.setPointer("p", "none")],
      ];
      for (const [expected, call] of kinds) {
        const error = await assertRejects(call, VolcastError);
        assertEquals(error.kind, expected, error.message);
      }
      await target.createSnapshot("two");
      await target.deleteSnapshot("two");
      assertEquals((await target.snapshots()).map(({ name }) => name), ["one"]);
    }));

  test(`a ${kind} target makes shadows, lists and deletes them`, () =>
    withTarget(async ({ target }) => {
      await target.publish(release("1"), { as: "one" });
      const held = await assertRejects(() => target.shadowSnapshot("one"), VolcastError);
      assertEquals(held.kind, "held");
      await target.publish(release("2"), { as: "two" });
      const { releasedBlocks, ...shadow } = await target.shadowSnapshot("one");
      assert(releasedBlocks > 0, `${releasedBlocks} blocks`);
      assertEquals([shadow.name, shadow.kind, shadow.pointers], ["one", "shadow", []]);
      const listed = await target.snapshots();
      assertEquals(listed.map(({ name, kind }) => [name, kind]), [
        ["one", "shadow"],
        ["two", "regular"],
      ]);
      assertEquals(listed[0], shadow);
      const again = await assertRejects(() => target.shadowSnapshot("one"), VolcastError);
      assertEquals(again.kind, "nothing");
      await target.deleteSnapshot("one");
      assertEquals((await target.snapshots()).map(({ name }) => name), ["two"]);
    }));

  test(`a ${kind} target tells why the sender's side failed, and publishes nothing then`, () =>
    withTarget(async ({ target }) => {
      await target.publish(release("1"), { as: "one" });
      const failing = function* (): Generator<TreeEntry> {
        yield* release("22");
        throw new VolcastError("io", "Cannot take the tree: it broke");
      };
      const error = await assertRejects(
        () => target.publish(failing(), { as: "two" }),
        VolcastError,
      );
      assertEquals(error.message, "Cannot take the tree: it broke");
      assertEquals((await target.snapshots()).map(({ name }) => name), ["one"]);
      assertEquals(await pictureOf(target.entries()), await pictureOf(release("1")));
    }));
}

test("openTarget() names who has a volume open, and where to find it", () =>
  withVolume((path) =>
    served(path, async (url) => {
      const script = `
        import { openTarget } from "${new URL("../../src/cli/target.ts", import.meta.url)}";
        try { await openTarget(Deno.args[0]); } catch (error) { console.log(error.kind, error.message, error.hint); }`;
      const { stdout } = await new Deno.Command(Deno.execPath(), {
        args: [
          "eval",
          `--config=${new URL("../../deno.json", import.meta.url).pathname}`,
          script,
          path,
        ],
        stdout: "piped",
      }).output();
      const text = new TextDecoder().decode(stdout);
      assertStringIncludes(text, "busy");
      assertStringIncludes(text, url);
    })
  ));

test("the commands import, publish and export, by path and by URL", () =>
  withVolume(async (path, top) => {
    await Deno.mkdir(`${top}/t/d`, { recursive: true });
    await Deno.writeTextFile(`${top}/t/d/f`, "hello");
    await Deno.writeTextFile(`${top}/t/g`, "g");
    assertStringIncludes(await ok("import", path, `${top}/t`), "2 files");
    assertStringIncludes(
      await ok("publish", path, `${top}/t`, "--as", "one"),
      "0 created, 0 changed, 0 removed, 4",
    );
    await ok("export", path, `${top}/out`, "--at", "one");
    assertEquals(
      await pictureOf(hostEntries(`${top}/out`)),
      await pictureOf(hostEntries(`${top}/t`)),
    );
    assertEquals((await volcast("export", path, `${top}/out`)).code, 1);
    await ok("export", path, `${top}/out`, "--overwrite");
    const { bytes } = await volcast("export", path, "-", "--path", "d");
    assert(bytes.length % 512 === 0 && bytes.length > 0);
    assertEquals((await volcast("import", path, `${top}`)).code, 2);
    assertEquals((await volcast("publish", path, `${top}/t`)).code, 2);
    Deno.env.set("VOLCAST_TOKEN", TOKEN);
    try {
      await served(path, async (url) => {
        await Deno.writeTextFile(`${top}/t/g`, "gg");
        const text = await ok("publish", url, `${top}/t`, "--as", "two");
        assertStringIncludes(text, "1 changed");
        await ok("export", url, `${top}/out2`);
        assertEquals(
          await pictureOf(hostEntries(`${top}/out2`)),
          await pictureOf(hostEntries(`${top}/t`)),
        );
      });
    } finally {
      Deno.env.delete("VOLCAST_TOKEN");
    }
  }));

test("publish refuses a tree that it cannot read whole", () =>
  withVolume(async (path, top) => {
    await Deno.mkdir(`${top}/t`);
    await Deno.writeTextFile(`${top}/t/a`, "a");
    await ok("publish", path, `${top}/t`, "--as", "one");
    const { success } = await new Deno.Command("sh", {
      args: ["-c", `ln -s "$(printf 'x\\377')" ${top}/t/s`],
    }).output();
    assert(success);
    for (const args of [["publish", "--as", "two"], ["import", "--prune"]]) {
      const { code, err } = await volcast(args[0], path, `${top}/t`, ...args.slice(1));
      assertEquals(code, 1);
      assertStringIncludes(err, "UTF-8");
    }
    assertEquals((await volcast("import", path, `${top}/t`)).code, 1);
    assertEquals(
      (await volcast("publish", path, `${top}/t`, "--as", "two", "--skip-unreadable")).code,
      0,
    );
  }));

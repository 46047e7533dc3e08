import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  command,
  fails,
  inDirectory,
  json,
  makeSite,
  makeTree,
  ok,
  serving,
  volcast,
} from "../helpers/cli.ts";
import { test } from "../helpers/strict.ts";

interface Files {
  readonly directory: string;
  readonly site: string;
  readonly copy: string;
  readonly full: string;
  readonly increment: string;
}

/** A volume with two releases, the full image of the first and the increment to the second. */
async function withImages(work: (files: Files) => Promise<void>): Promise<void> {
  await inDirectory(async (directory) => {
    const files = {
      directory,
      site: await makeSite(directory),
      copy: `${directory}/copy.vol`,
      full: `${directory}/june3.img`,
      increment: `${directory}/june5.img`,
    };
    await ok("image", files.site, "june3", "-o", files.full);
    await ok("image", files.site, "june5 - june3", "-o", files.increment);
    await work(files);
  });
}

const names = (directory: string) =>
  [...Deno.readDirSync(directory)].map(({ name }) => name).sort();

test("image writes whole files, the same bytes every time", async () => {
  await withImages(async ({ directory, site, increment }) => {
    const before = names(directory);
    assertEquals(before, ["june3.img", "june5.img", "site.vol", "tree"]);
    const bytes = await Deno.readFile(increment);
    assertEquals(bytes.length, (await json("plan", site, "june5 - june3")).bytes);
    assertEquals((await volcast("image", site, "june5 - june3")).bytes, bytes);

    await fails(1, /it exists already\n.*--force/, "image", site, "june5", "-o", increment);
    assertEquals(await Deno.readFile(increment), bytes);
    await ok("image", site, "june5", "-o", increment, "--force");
    assert((await Deno.stat(increment)).size > bytes.length);
    await fails(2, /it is a directory/, "image", site, "june5", "-o", directory);
    await fails(
      1,
      /its directory does not exist/,
      "image",
      site,
      "june5",
      "-o",
      `${directory}/no/x`,
    );
    await fails(2, /either an expression or --snapshots/, "image", site, "-o", "-");
    await fails(2, /either/, "image", site, "june5", "--snapshots", "all", "-o", "-");
    await fails(2, /neither 'all' nor names/, "image", site, "--snapshots", "a b", "-o", "-");
    await fails(1, /'june9'/, "image", site, "--snapshots", "june3,june9", "-o", "-");
    await fails(2, /either an expression or --delete/, "plan", site);
    await fails(1, /'june9'/, "image", site, "june9", "-o", `${directory}/june9.img`);
    await ok("image", site, "june5", "-o", "/dev/null");
    assertEquals(names(directory), before);
  });
});

test("apply: a full image makes the volume, an increment moves it on, again is exit code 3", async () => {
  await withImages(async ({ directory, site, copy, full, increment }) => {
    const made = await json("apply", copy, full);
    assertEquals([made.kind, made.name, made.bytes], [
      "full",
      "june3",
      (await Deno.stat(full)).size,
    ]);
    assertEquals(await ok("cat", copy, "a"), "one\n");
    const moved = await json("apply", copy, increment);
    assertEquals([moved.kind, moved.name, moved.bytes], [
      "increment",
      "june5",
      (await Deno.stat(increment)).size,
    ]);
    assertEquals(await ok("cat", copy, "a"), "two, longer\n");
    assertEquals(await ok("cat", copy, "a", "--at", "june3"), "one\n");
    assertEquals((await json("info", copy)).volume.role, "replica");
    assertEquals((await json("fsck", copy)).clean, true);

    const again = await volcast("apply", copy, increment, "--json");
    assertEquals(again.code, 3);
    assertEquals(JSON.parse(again.out), { kind: "current", snapshot: moved.top, name: "june5" });
    const text = await volcast("apply", copy, increment);
    assertEquals(text.code, 3);
    assertMatch(text.out, /is at 'june5' \(.*\) already/);
    // Images made at the replica are the same.
    assertEquals(
      (await volcast("image", copy, "june5 - june3")).bytes,
      (await volcast("image", site, "june5 - june3")).bytes,
    );
    await fails(1, /follows its parent/, "snapshot", "create", copy, "x");
    assertEquals(names(directory), ["copy.vol", "june3.img", "june5.img", "site.vol", "tree"]);
  });
});

test("apply refuses what does not fit, and leaves the volume as it was", async () => {
  await withImages(async ({ directory, site, copy, full, increment }) => {
    await fails(1, /increment since 'june3', and .* does not exist/, "apply", copy, increment);
    await fails(1, /is an origin/, "apply", site, full);
    await fails(1, /is an origin/, "apply", site, full, "--replace");
    await ok("apply", copy, full);
    await ok("apply", copy, increment);
    await fails(1, /it is a full one, and .* is at 'june5'\n.*--replace/, "apply", copy, full);
    assertEquals((await json("apply", copy, full, "--replace")).name, "june3");
    assertEquals(await ok("cat", copy, "a"), "one\n");

    const other = `${directory}/other.vol`;
    await ok("init", other, "--size", "16MiB");
    await makeTree(`${directory}/t`, { x: "x" });
    await ok("publish", other, `${directory}/t`, "--as", "june3");
    const image = `${directory}/other.img`;
    await ok("image", other, "june3", "-o", image);
    await fails(1, /--replace/, "apply", copy, image);
    await ok("snapshot", "create", other, "june5");
    await ok("image", other, "june5 - june3", "-o", image, "--force");
    await fails(1, /it is of volume/, "apply", copy, image);
    assertEquals(await ok("cat", copy, "a"), "one\n");

    await fails(2, /from its parent only/, "apply", "http://127.0.0.1:1", full);
    await fails(1, /there is no such file/, "apply", copy, `${directory}/none.img`);
    await fails(2, /it is a directory/, "apply", copy, directory);
    await fails(4, /does not begin as an image stream does/, "apply", copy, site);
    await Deno.writeTextFile(image, "short");
    await fails(4, /it ends before its header does/, "apply", copy, image);
  });
});

test("apply refuses an image with one flipped bit or cut off, at a new path too", async () => {
  await withImages(async ({ directory, copy, full, increment }) => {
    const before = names(directory);
    const bytes = await Deno.readFile(full);
    const bad = `${directory}/bad.img`;
    const places = [3, 40, 1000, 1030, 1100, 5000, bytes.length - 100, bytes.length - 10];
    for (const at of places) {
      const changed = bytes.slice();
      changed[at] ^= 4;
      await Deno.writeFile(bad, changed);
      await fails(4, /Cannot (read|apply)/, "apply", copy, bad);
      await Deno.remove(bad);
      assertEquals(names(directory), before, `a bit at ${at}`);
    }
    await ok("apply", copy, full);
    const small = await Deno.readFile(increment);
    for (const at of [50, 1500, Math.floor(small.length / 2), small.length - 1]) {
      const changed = small.slice();
      changed[at] ^= 1;
      await Deno.writeFile(bad, changed);
      await fails(4, /Cannot (read|apply)/, "apply", copy, bad);
      await Deno.writeFile(bad, small.subarray(0, at));
      await fails(4, /incomplete|ends before/, "apply", copy, bad);
      assertEquals(await ok("cat", copy, "a"), "one\n");
    }
    assertEquals((await json("fsck", copy)).clean, true);
    assertEquals((await json("apply", copy, increment)).name, "june5");
  });
});

test("apply goes on with what a cut image left", async () => {
  await withImages(async ({ directory, copy, full }) => {
    const bytes = await Deno.readFile(full);
    const part = `${directory}/part.img`;
    await Deno.writeFile(part, bytes.subarray(0, 2_500_000));
    await fails(4, /it is incomplete/, "apply", copy, part);
    assert(names(directory).includes("copy.vol.incoming"));
    assert(!names(directory).includes("copy.vol"));
    const done = await json("apply", copy, full);
    assertEquals(done.name, "june3");
    assert(done.bytes < bytes.length / 2, `${done.bytes} bytes were read again`);
    assertEquals((await json("fsck", copy)).clean, true);
    assert(!names(directory).includes("copy.vol.incoming"));
  });
});

test("apply reads standard input, also when it goes on", async () => {
  await withImages(async ({ copy, full, increment }) => {
    const apply = async (bytes: Uint8Array): Promise<{ code: number; said: string }> => {
      const child = command(["apply", copy, "-"], { stdin: "piped" }).spawn();
      const output = child.output();
      const writer = child.stdin.getWriter();
      // Chunks that respect no boundary of the stream.
      for (let at = 0; at < bytes.length; at += 77_777) {
        await writer.write(bytes.subarray(at, at + 77_777));
      }
      await writer.close();
      const { code, stdout, stderr } = await output;
      return { code, said: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
    };
    const bytes = await Deno.readFile(full);
    const cut = await apply(bytes.subarray(0, 2_000_000));
    assertEquals(cut.code, 4, cut.said);
    const done = await apply(bytes);
    assertEquals(done.code, 0, done.said);
    assertMatch(done.said, /is at 'june3'/);
    const moved = await apply(await Deno.readFile(increment));
    assertEquals(moved.code, 0, moved.said);
    assertEquals(await ok("cat", copy, "a"), "two, longer\n");
    assertEquals((await apply(new Uint8Array(0))).code, 4);
  });
});

test("apply takes an image from a server's URL", async () => {
  await withImages(async ({ site, copy }) => {
    await serving([site], async (url) => {
      assertEquals((await json("apply", copy, `${url}/replicate?to=june3`)).kind, "full");
      const moved = await json("apply", copy, `${url}/image?select=june5+-+june3`);
      assertEquals([moved.kind, moved.name], ["increment", "june5"]);
      assertEquals((await volcast("apply", copy, `${url}/replicate`)).code, 3);
      await fails(1, /june9/, "apply", copy, `${url}/image?select=june9`);
      await fails(
        4,
        /does not begin as an image|ends before its header/,
        "apply",
        copy,
        `${url}/tree`,
      );
    });
    await fails(1, /Cannot read http/, "apply", copy, "http://127.0.0.1:9/replicate");
    assertEquals((await json("fsck", copy)).clean, true);
  });
});

test("apply goes on when a server cuts its answers", async () => {
  await withImages(async ({ copy, full }) => {
    const bytes = await Deno.readFile(full);
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const server = serveCutting(listener, bytes);
    const url = `http://127.0.0.1:${(listener.addr as Deno.NetAddr).port}/x.img`;
    assertEquals((await json("apply", copy, url)).name, "june3");
    listener.close();
    const requests = await server;
    assert(requests >= 4, `${requests} requests`);
    assertEquals((await json("fsck", copy)).clean, true);
  });
});

/** Answers ranges of `bytes`, but hangs up after 1.5 MB. @returns The number of requests. */
async function serveCutting(listener: Deno.Listener, bytes: Uint8Array): Promise<number> {
  let requests = 0;
  for await (const connection of listener) {
    requests++;
    let request = "";
    const chunk = new Uint8Array(4096);
    while (!request.includes("\r\n\r\n")) {
      const count = await connection.read(chunk);
      if (count === null) break;
      request += new TextDecoder().decode(chunk.subarray(0, count));
    }
    const [, from, to] = /range: bytes=(\d+)-(\d*)/i.exec(request) ?? ["", "0", ""];
    const start = Number(from);
    const end = to === "" ? bytes.length : Number(to) + 1;
    const head = [
      "HTTP/1.1 206 Partial Content",
      'etag: "x"',
      `content-range: bytes ${start}-${end - 1}/${bytes.length}`,
      `content-length: ${end - start}`,
      "connection: close",
      "\r\n",
    ];
    const writer = connection.writable.getWriter();
    await writer.write(new TextEncoder().encode(head.join("\r\n")));
    await writer.write(bytes.slice(start, Math.min(end, start + 1_500_000)));
    await writer.close();
  }
  return requests;
}

test("apply ends on SIGINT in order and can go on: exit code 130", async () => {
  await withImages(async ({ directory, copy, full }) => {
    const bytes = await Deno.readFile(full);
    const child = command(["apply", copy, "-"], { stdin: "piped" }).spawn();
    const output = child.output();
    const writer = child.stdin.getWriter();
    await writer.write(bytes.subarray(0, 2_500_000));
    while (!names(directory).includes("copy.vol.incoming")) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const kept = () => (Deno.statSync(`${directory}/copy.vol.incoming`).blocks ?? 0) * 512;
    while (kept() < 1_000_000) await new Promise((resolve) => setTimeout(resolve, 10));
    child.kill("SIGINT");
    const { code, stderr } = await output;
    await writer.abort().catch(() => {});
    assertEquals([code, new TextDecoder().decode(stderr)], [130, "volcast: Interrupted\n"]);
    const done = await json("apply", copy, full);
    assert(done.bytes < bytes.length, `${done.bytes} bytes: it did not go on`);
  });
});

test("image ends on SIGINT in order: no half file, exit code 130", async () => {
  await inDirectory(async (directory) => {
    const site = `${directory}/site.vol`;
    await ok("init", site, "--size", "512MiB");
    const large = new Uint8Array(200_000_000);
    // No block is equal to another, or a hole.
    const view = new DataView(large.buffer);
    for (let at = 0; at < large.length; at += 4096) view.setUint32(at, at + 1);
    await makeTree(`${directory}/tree`, { large });
    await ok("publish", site, `${directory}/tree`, "--as", "a");
    const child = command(["image", site, "a", "-o", `${directory}/a.img`]).spawn();
    let ended = false;
    const output = child.output().finally(() => ended = true);
    while (!ended && !names(directory).some((name) => name.endsWith(".part"))) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    child.kill("SIGINT");
    const { code, stderr } = await output;
    assertEquals([code, new TextDecoder().decode(stderr)], [130, "volcast: Interrupted\n"]);
    assertEquals(names(directory), ["site.vol", "tree"]);
  });
});

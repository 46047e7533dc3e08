/**
 * Limits of the host and of a volume, met from outside: each has a clear error, readers are served, and
 * it goes on without a restart when the cause is gone.
 */

import { existsSync } from "node:fs";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { diskTest, setImmutable, SmallDisk, whyNotImmutable } from "../helpers/small_disks.ts";
import { test } from "../helpers/strict.ts";
import {
  currentOf,
  getJson,
  run,
  Server,
  sleep,
  TempDirectory,
  until,
  volcast,
  volcastCommand,
} from "./harness.ts";
import { noise } from "./trees.ts";

const MIB = 2 ** 20;

/** A directory with files of `noise`, by name and size. */
function tree(temp: TempDirectory, name: string, files: Record<string, number>): string {
  const path = temp.file(name);
  Deno.mkdirSync(path, { recursive: true });
  for (const [file, size] of Object.entries(files)) {
    Deno.writeFileSync(`${path}/${file}`, noise(size));
  }
  return path;
}

/** Reads a file again and again until told to end; any failure is thrown then. */
function reader(url: string, wanted: readonly Uint8Array[]): { end(): Promise<number> } {
  let isEnding = false;
  const reading = (async () => {
    let count = 0;
    while (!isEnding || count === 0) {
      const response = await fetch(url);
      const bytes = new Uint8Array(await response.arrayBuffer());
      assertEquals(response.status, 200);
      assert(wanted.some((one) => Buffer.compare(one, bytes) === 0), "one release or the other");
      count++;
      await sleep(20);
    }
    return count;
  })();
  // Who waits for it is told; what went wrong before that is what counts then.
  reading.catch(() => {});
  return {
    end(): Promise<number> {
      isEnding = true;
      return reading;
    },
  };
}

async function statusOf(
  url: string,
): Promise<{ ready: boolean; volume: { writeError: string | null } }> {
  return await getJson(`${url}/status`) as Awaited<ReturnType<typeof statusOf>>;
}

/** Waits until a node says that it can write again. */
function untilReady(url: string): Promise<void> {
  return until("ready again", async () => {
    const response = await fetch(`${url}/readyz`);
    await response.body?.cancel();
    return response.ok;
  });
}

diskTest(
  "an origin and its site go on by themselves when their full disks have room again",
  async () => {
    using temp = new TempDirectory();
    await using disk = await SmallDisk.mount(3 * 1024);
    await using far = await SmallDisk.mount(3 * 1024);
    const volume = disk.file("site.vol");
    const public_ = tree(temp, "public", { first: MIB, second: 1000 });
    const before = Deno.readFileSync(`${public_}/first`);
    await volcast(["init", volume, "--size", "64MiB"]);
    await volcast(["publish", volume, public_, "--as", "one"]);
    await using origin = await Server.start([volume]);
    const site = ["--site", "paris", "--parent", origin.url, "--every", "1s"];
    await using paris = await Server.start([far.file("paris.vol"), ...site]);
    await until("the first release", async () => await currentOf(paris.url) === "one");
    tree(temp, "public", { first: MIB, third: MIB, fourth: 2 * MIB });
    const after = Deno.readFileSync(`${public_}/first`);

    // The origin's disk: publishing is refused, and says why; nobody who reads notices.
    const readers = [origin, paris].map(({ url }) => reader(`${url}/files/first`, [before, after]));
    const publish = ["publish", origin.url, public_, "--as", "two"];
    const refused = await volcast(publish, { code: 1 });
    assertMatch(refused.stderr, /annot write \S+site\.vol at VBN \d+: No space left on device/);
    assertStringIncludes(refused.stderr, "Free space in the file system that holds it");
    const { ready, volume: { writeError } } = await statusOf(origin.url);
    assertEquals(ready, false);
    assertStringIncludes(writeError ?? "", "No space left");
    await until("it is in the log", () => origin.log.includes("Reading goes on, writing does not"));
    assertStringIncludes(
      (await volcast(publish, { code: 1 })).stderr,
      "A server goes on by itself",
    );
    await disk.remount("size=32768k");
    await untilReady(origin.url);
    assertEquals((await statusOf(origin.url)).volume.writeError, null);
    await volcast(publish);

    // The site's disk: it keeps the release that it has, and pulls when there is room.
    await until(
      "the site is full",
      () => /Cannot write \S+ at VBN \d+: No space left/.test(paris.log),
    );
    assertEquals(await currentOf(paris.url), "one");
    await far.remount("size=32768k");
    await until("the second release", async () => await currentOf(paris.url) === "two");
    await untilReady(paris.url);
    for (const one of readers) assert(await one.end() > 0);
    assertEquals(await origin.stop(), 0);
    assertEquals(await paris.stop(), 0);
    for (const path of [volume, far.file("paris.vol")]) await volcast(["fsck", path]);
  },
);

diskTest("what is written to a full disk leaves nothing half done", async () => {
  using temp = new TempDirectory();
  await using disk = await SmallDisk.mount(256);
  const volume = temp.file("site.vol");
  await volcast(["init", volume, "--size", "4MiB"]);
  await volcast(["publish", volume, tree(temp, "public", { first: MIB }), "--as", "one"]);
  await volcast(["image", volume, "one", "-o", temp.file("one.img")]);
  for (
    const args of [
      ["init", disk.file("new.vol"), "--size", "64MiB"],
      ["image", volume, "one", "-o", disk.file("one.img")],
      ["tape", "write", volume, "one", "-o", disk.file("one.tape")],
      ["copy", volume, disk.file("copy.vol")],
      ["apply", disk.file("copy.vol"), temp.file("one.img")],
      ["keygen", disk.file("site.key")],
    ]
  ) {
    const filler = disk.file("filler");
    const isSmall = args[0] === "init" || args[0] === "keygen";
    if (isSmall) Deno.writeFileSync(filler, new Uint8Array(256 * 1024));
    const { stderr } = await volcast(args, { code: 1 });
    assertMatch(stderr, /^volcast: Cannot write \S+.*: No space left on device/, args.join(" "));
    assertStringIncludes(stderr, "Free space in the file system that holds it");
    if (isSmall) Deno.removeSync(filler);
    assertEquals([...Deno.readDirSync(disk.path)], [], args.join(" "));
  }
});

test("a full volume takes the same release once a snapshot is deleted, without a restart", async () => {
  using temp = new TempDirectory();
  const volume = temp.file("site.vol");
  await volcast(["init", volume, "--size", "6MiB"]);
  await using origin = await Server.start([volume]);
  const publish = (name: string) =>
    run([...volcastCommand(), "publish", origin.url, temp.file("public"), "--as", name]);
  for (const name of ["one", "two", "three"]) {
    tree(temp, "public", { first: 1.5 * MIB });
    assertEquals((await publish(name)).code, 0);
  }
  const wanted = Deno.readFileSync(temp.file("public/first"));
  tree(temp, "public", { first: 1.5 * MIB });
  const { code, stderr } = await publish("four");
  assertEquals(code, 1);
  assertMatch(stderr, /cannot write \d+ more blocks: the volume has \d+ blocks, \d+ of them free/);
  assertStringIncludes(stderr, "Delete snapshots (volcast plan VOLUME --delete a,b");
  assertEquals((await statusOf(origin.url)).ready, true);
  assertEquals(
    Buffer.compare(
      new Uint8Array(await (await fetch(`${origin.url}/files/first`)).arrayBuffer()),
      wanted,
    ),
    0,
  );
  const names = (await getJson(`${origin.url}/snapshots`)) as unknown as { snapshots?: unknown };
  assert(!JSON.stringify(names).includes("four"));
  const deleted = await fetch(`${origin.url}/snapshots/one`, { method: "DELETE" });
  await deleted.body?.cancel();
  assertEquals(deleted.ok, true);
  assertEquals((await publish("four")).code, 0);
  assertEquals(await origin.stop(), 0);
  await volcast(["fsck", volume]);
});

diskTest("a volume on a read-only file system can be read, served and pulled from", async () => {
  using temp = new TempDirectory();
  await using disk = await SmallDisk.mount(4 * 1024);
  const volume = disk.file("site.vol");
  const public_ = tree(temp, "public", { first: 5000 });
  await volcast(["init", volume, "--size", "16MiB"]);
  await volcast(["publish", volume, public_, "--as", "one"]);
  await disk.remount("ro");
  assertEquals((await volcast(["ls", volume])).stdout, "first\n");
  await volcast(["export", volume, temp.file("out")]);
  assertEquals(Deno.readFileSync(temp.file("out/first")), Deno.readFileSync(`${public_}/first`));
  await volcast(["fsck", volume]);
  await volcast(["image", volume, "one", "-o", temp.file("one.img")]);
  const { stderr } = await volcast(["publish", volume, public_, "--as", "two"], { code: 1 });
  assertStringIncludes(stderr, "Cannot change the volume: it was opened to be read only");
  assertStringIncludes(stderr, "Make the file system that holds it writable");
  await using origin = await Server.start([volume]);
  assertEquals((await statusOf(origin.url)).ready, true);
  const answer = await fetch(`${origin.url}/snapshots`, {
    method: "POST",
    body: JSON.stringify({ name: "two" }),
    headers: { "content-type": "application/json" },
  });
  assertEquals(answer.status, 409);
  assertStringIncludes(await answer.text(), "opened to be read only");
  const pulled = ["pull", temp.file("paris.vol"), "--site", "paris", "--parent", origin.url];
  assertStringIncludes((await volcast(pulled)).stdout, "Pulled 'one'");
  // Several may read it at once.
  assertEquals((await volcast(["ls", volume])).stdout, "first\n");
  assertEquals(await origin.stop(), 0);
});

diskTest("lost permissions are named, and a site goes on when it has them again", async () => {
  using temp = new TempDirectory();
  await using disk = await SmallDisk.mount(8 * 1024);
  const volume = disk.file("site.vol");
  const public_ = tree(temp, "public", { first: 5000 });
  await volcast(["init", volume, "--size", "16MiB"]);
  await volcast(["publish", volume, public_, "--as", "one"]);
  await setImmutable(volume, true);
  assertEquals((await volcast(["ls", volume])).stdout, "first\n");
  const { stderr } = await volcast(["publish", volume, public_, "--as", "two"], { code: 1 });
  assertStringIncludes(stderr, "it was opened to be read only (Cannot write");
  assertStringIncludes(stderr, "lsattr shows whether it is immutable");
  await using origin = await Server.start([volume]);

  await setImmutable(disk.path, true);
  const paris = disk.file("paris.vol");
  const site = ["--site", "paris", "--parent", origin.url, "--every", "1s"];
  await using server = await Server.start([paris, ...site]);
  await until("it is refused", () => server.log.includes(`Cannot make ${paris}.incoming`));
  const answer = await fetch(`${server.url}/readyz`);
  await answer.body?.cancel();
  assertEquals(answer.status, 503);
  await setImmutable(disk.path, false);
  await until("the release", async () => await currentOf(server.url) === "one");
  assertEquals(await server.stop(), 0);
  assertEquals(await origin.stop(), 0);
  await setImmutable(volume, false);
}, await whyNotImmutable());

test("a command whose output cannot be written says so", async () => {
  if (Deno.build.os !== "linux") return;
  using temp = new TempDirectory();
  const volume = temp.file("site.vol");
  await volcast(["init", volume, "--size", "4MiB"]);
  await volcast(["publish", volume, tree(temp, "public", { first: 5000 }), "--as", "one"]);
  const command = [...volcastCommand(), "cat", volume, "/first"];
  const { code, stderr } = await run(["sh", "-c", `exec "$@" > /dev/full`, "sh", ...command]);
  assertEquals(code, 1);
  assertEquals(
    stderr,
    "volcast: Cannot write the output: No space left on device (os error 28)\n" +
      "Free space in the file system that holds it, or make that larger\n",
  );
});

/** Where libfaketime is, which sets the clock that one process sees; `undefined` without it. */
function fakeTime(): string | undefined {
  return ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]
    .map((directory) => `${directory}/faketime/libfaketime.so.1`)
    .find((path) => existsSync(path));
}

diskTest(
  "a hierarchy goes on when its clocks jump a year back, ten forth, and to 1970",
  async () => {
    using temp = new TempDirectory();
    const volume = temp.file("site.vol");
    await volcast(["init", volume, "--size", "16MiB"]);
    const clock = temp.file("clock");
    Deno.writeTextFileSync(clock, "+0");
    const env = {
      LD_PRELOAD: fakeTime()!,
      FAKETIME_TIMESTAMP_FILE: clock,
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
    };
    const standby = await Server.start([temp.file("s.vol"), "--standby", "--site", "s"], { env });
    await using _standby = standby;
    const rounds = ["--mirror-to", standby.url, "--mirror-every", "200ms", "--site", "o"];
    await using origin = await Server.start([volume, ...rounds, "--scrub", "20MiB"], { env });
    const site = ["--site", "paris", "--parent", origin.url, "--every", "1h", "--max-lag", "1h"];
    const paris = await Server.start([temp.file("paris.vol"), ...site], { env });
    await using _paris = paris;
    const public_ = temp.file("public");
    for (const jump of ["-365d", "+3650d", "-20700d", "+0"]) {
      Deno.writeTextFileSync(clock, jump);
      tree(temp, "public", { first: 5000 });
      const name = `at${jump.replace("+", "")}`;
      await volcast(["publish", origin.url, public_, "--as", name]);
      await until(`${name} at the site`, async () => await currentOf(paris.url) === name);
      assertEquals((await statusOf(paris.url)).ready, true, `${jump}: ${paris.log}`);
      const { cp } = (await getJson(`${origin.url}/status`) as { master: { cp: number } }).master;
      await until(`${name} at the standby`, async () => {
        const status = await getJson(`${standby.url}/status`) as { current?: { cp: number } };
        return (status.current?.cp ?? 0) >= cp;
      });
    }
    for (const server of [paris, origin, standby]) assertEquals(await server.stop(), 0);
    await volcast(["fsck", volume]);
  },
  fakeTime() === undefined ? "libfaketime is not installed" : undefined,
);

/**
 * File backup from outside: images kept as files inside another volume, and brought back from there.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { has, Server, sleep, TempDirectory, until, volcast, volcastCommand } from "./harness.ts";
import { assertPublished, assertRestored, shell, twoReleases } from "./releases.ts";
import { noise } from "./trees.ts";

Deno.test({
  name:
    "file backup: a full image and an increment go into another volume and come back from there",
  ignore: !(await has("rsync")),
  async fn() {
    using directory = new TempDirectory();
    const releases = await twoReleases(directory);
    const { volume } = releases;
    const backup = directory.file("backup.vol");
    const image = (
      expression: string,
      path: string,
      ...options: string[]
    ) => ["image", volume, expression, "-o", `${backup}:${path}`, ...options];
    await volcast(["init", backup, "--size", "1GiB"]);
    const missing = await volcast(image("june3", "/backups/june3.img"), { code: 1 });
    assertMatch(missing.stderr, /\/backups\/june3.img: its directory does not exist\n.*--parents/);
    await volcast(image("june3", "/backups/june3.img", "--parents"));
    await volcast(image("june5 - june3", "/backups/june5.img"));
    // The file is the image, byte for byte.
    const same = await shell(
      `cmp <(volcast image '${volume}' june3) <(volcast cat '${backup}' /backups/june3.img)`,
    );
    assertEquals([same.code, same.stdout], [0, ""]);
    const there = await volcast(image("june5", "/backups/june3.img"), { code: 1 });
    assertMatch(there.stderr, /\/backups\/june3.img: it exists already\n.*--force/);
    const itself = await volcast(["image", volume, "june3", "-o", `${volume}:/x`], { code: 2 });
    assertMatch(itself.stderr, /is the volume that the image is of/);

    const copy = directory.file("copy.vol");
    await volcast(["apply", copy, `${backup}:/backups/june3.img`]);
    await assertRestored(copy, releases, "june3");
    await volcast(["apply", copy, `${backup}:/backups/june5.img`]);
    await assertRestored(copy, releases, "june5");
    await assertPublished(directory, copy, releases);
    const none = await volcast(["apply", copy, `${backup}:/backups/june9.img`], { code: 1 });
    assertMatch(none.stderr, /Cannot find '\/backups\/june9.img'/);

    // Segments in a volume, and single files out of an image in a volume.
    await volcast([
      ...["tape", "write", volume, "june3", "--segment-size", "30MiB"],
      ...["-o", `${backup}:/tapes/`, "--parents"],
    ]);
    const names = (await volcast(["ls", backup, "/tapes"])).stdout.trim().split("\n");
    assert(names.length >= 3, names.join());
    const segments = names.map((name) => `${backup}:/tapes/${name.split(/\s/).at(-1)}`);
    const taped = directory.file("taped.vol");
    await volcast(["tape", "read", taped, ...segments.reverse()]);
    await assertRestored(taped, releases, "june3");
    const found = await shell(
      `volcast tape extract '${backup}:/backups/june3.img' --path /odd/plain -o -`,
    );
    assertEquals(found.stdout, "plain\n");

    // Through a server that has the volume.
    await using server = await Server.start([backup]);
    const far = directory.file("far.vol");
    const busy = await volcast(["apply", far, `${backup}:/backups/june3.img`], { code: 5 });
    assertMatch(busy.stderr, /\/files\/backups\/june3.img\?at=active/);
    await volcast(["apply", far, `${server.url}/files/backups/june3.img`]);
    await volcast(["apply", far, `${server.url}/files/backups/june5.img`]);
    await assertRestored(far, releases, "june5");
    assertEquals(await server.stop(), 0);
    assertEquals(JSON.parse((await volcast(["fsck", backup, "--json"])).stdout).clean, true);
  },
});

/** A volume with 40 MB in it, and one that has room for three such images. */
async function large(directory: TempDirectory): Promise<{ volume: string; backup: string }> {
  const tree = directory.file("tree");
  Deno.mkdirSync(tree);
  for (let i = 0; i < 10; i++) Deno.writeFileSync(`${tree}/${i}`, noise(4_000_000));
  const volume = directory.file("site.vol");
  const backup = directory.file("backup.vol");
  await volcast(["init", volume, "--size", "128MiB"]);
  await volcast(["publish", volume, tree, "--as", "june3"]);
  await volcast(["init", backup, "--size", "140MiB"]);
  await volcast(["image", volume, "june3", "-o", `${backup}:/old.img`]);
  return { volume, backup };
}

Deno.test("file backup: killed at any moment, the name means the old image and the volume is clean", async () => {
  using directory = new TempDirectory();
  const { volume, backup } = await large(directory);
  const [program, ...words] = volcastCommand();
  const write = ["image", volume, "june3", "-o", `${backup}:/old.img`, "--force"];
  let killed = 0;
  for (const delay of [0, 15, 40, 80]) {
    const child = new Deno.Command(program, {
      args: [...words, ...write],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    // It has begun when it holds the volume.
    await until("the volume is held, or the command has ended", async () => {
      const isHeld = /FLOCK +ADVISORY +WRITE +(\d+)/g;
      const locks = await Deno.readTextFile("/proc/locks");
      return [...locks.matchAll(isHeld)].some(([, pid]) => Number(pid) === child.pid) ||
        await Promise.race([child.status.then(() => true), sleep(0)]) === true;
    });
    await sleep(delay);
    try {
      child.kill("SIGKILL");
    } catch {
      // It was fast.
    }
    if ((await child.status).signal === "SIGKILL") killed++;
    assertEquals(JSON.parse((await volcast(["fsck", backup, "--json"])).stdout).clean, true);
    const names = (await volcast(["ls", backup])).stdout.trim().split("\n");
    assert(
      names.every((name) => name.endsWith("old.img") || name.endsWith(".old.img.part")),
      names.join(),
    );
    await assertSameImage(volume, backup);
  }
  assert(killed > 0, "every command was faster than its end");
  // The next one takes away what a killed one left.
  await volcast(write);
  assertEquals((await volcast(["ls", backup])).stdout.trim().split("\n").length, 1);
  await assertSameImage(volume, backup);
});

async function assertSameImage(volume: string, backup: string): Promise<void> {
  const same = await shell(
    `cmp <(volcast image '${volume}' june3) <(volcast cat '${backup}' /old.img)`,
  );
  assertEquals([same.code, same.stdout], [0, ""]);
}

Deno.test("file backup: a volume without room refuses at once and has nothing of it", async () => {
  using directory = new TempDirectory();
  const { volume, backup } = await large(directory);
  await volcast(["image", volume, "june3", "-o", `${backup}:/second.img`]);
  await volcast(["image", volume, "june3", "-o", `${backup}:/third.img`]);
  const listing = (await volcast(["ls", backup, "--long"])).stdout;
  const full = await volcast(["image", volume, "june3", "-o", `${backup}:/fourth.img`], {
    code: 1,
  });
  assertMatch(full.stderr, /Cannot write \/fourth.img: it needs \d+ blocks, and \d+ are free/);
  assertEquals((await volcast(["ls", backup, "--long"])).stdout, listing);
  const replica = directory.file("replica.vol");
  await volcast(["apply", replica, `${backup}:/second.img`]);
  const refused = await volcast(["image", volume, "june3", "-o", `${replica}:/x.img`], { code: 1 });
  assertMatch(refused.stderr, /it is a replica/);
});

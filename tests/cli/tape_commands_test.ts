import { assert, assertEquals, assertMatch } from "@std/assert";
import { main, Terminal } from "../../src/cli/mod.ts";
import { BLOCK_SIZE } from "../../src/format/mod.ts";
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
import { parseImage } from "../helpers/parse_image.ts";
import { test } from "../helpers/strict.ts";

interface Files {
  readonly directory: string;
  readonly site: string;
  readonly copy: string;
}

/** A volume with two releases. */
async function withSite(work: (files: Files) => Promise<void>): Promise<void> {
  await inDirectory(async (directory) => {
    await work({
      directory,
      site: await makeSite(directory),
      copy: `${directory}/copy.vol`,
    });
  });
}

const names = (directory: string) =>
  [...Deno.readDirSync(directory)].map(({ name }) => name).sort();

test("tape write names segments, refuses what is there, and makes single ones again", async () => {
  await withSite(async ({ directory, site }) => {
    const out = `${directory}/out`;
    const write = ["tape", "write", site, "june3", "--segment-size", "1700KiB"];
    await fails(1, /its directory does not exist\n.*--parents/, ...write, "-o", `${out}/x`);
    const written = await json(...write, "-o", `${out}/`, "--parents");
    assertEquals(names(out), ["june3.001", "june3.002", "june3.003"]);
    assertEquals(written.map(({ number, count }: never) => [number, count]), [[1, 3], [2, 3], [
      3,
      3,
    ]]);
    for (const { name, bytes } of written) assertEquals((await Deno.stat(name)).size, bytes);
    const second = await Deno.readFile(`${out}/june3.002`);

    const before = names(out);
    await fails(1, /june3\.001: it exists already\n.*--force/, ...write, "-o", out);
    assertEquals(names(out), before);
    await Deno.remove(`${out}/june3.002`);
    await fails(
      2,
      /Cannot write segment 4: with these sizes the image has 3/,
      ...write,
      "--only",
      "2-4",
      "-o",
      out,
    );
    await ok(...write, "--only", "2", "-o", out);
    assertEquals(await Deno.readFile(`${out}/june3.002`), second);

    await ok(...write, "-o", `${out}/named`, "--force");
    await ok("tape", "write", site, "june5 - june3", "-o", `${out}/one`);
    await ok("tape", "write", site, "june5 - june3", "-o", out, "--segment-size", "1MiB");
    assertEquals(names(out), [
      ...["june3.001", "june3.002", "june3.003", "june5-since-june3.001"],
      ...["named.001", "named.002", "named.003", "one"],
    ]);
    // Standard output has them one behind the other.
    const parts = await Promise.all([1, 2, 3].map((i) => Deno.readFile(`${out}/june3.00${i}`)));
    assertEquals(
      (await volcast(...write, "-o", "-")).bytes,
      new Uint8Array(parts.flatMap((part) => [...part])),
    );
    await ok(...write, "-o", "/dev/null");
  });
});

const hasLoop = (await new Deno.Command("losetup", { args: ["-f"], stdout: "null", stderr: "null" })
  .output().catch(() => ({ success: false }))).success;
if (!hasLoop) console.log("Writing to a device is not tested: it takes root and loop devices");

Deno.test({
  name: "tape write opens a device once for all segments, as a drive that rewinds needs it",
  ignore: !hasLoop,
  fn: () =>
    withSite(async ({ directory, site, copy }) => {
      const disk = `${directory}/disk`;
      await Deno.writeFile(disk, new Uint8Array(16 * 2 ** 20));
      const losetup = async (...args: string[]) => {
        const { success, stdout } = await new Deno.Command("losetup", { args }).output();
        assert(success);
        return new TextDecoder().decode(stdout).trim();
      };
      const device = await losetup("-f", "--show", disk);
      try {
        const write = ["tape", "write", site, "june3", "--segment-size", "1700KiB"];
        await ok(...write, "-o", device);
        // What follows on the device is zeros.
        const { images } = await json("tape", "list", device);
        assertEquals([images[0].missing, images[0].missingSegments], [[], []]);
        assertEquals((await json("tape", "read", copy, device)).name, "june3");
        assertEquals((await json("fsck", copy)).clean, true);
      } finally {
        await losetup("-d", device);
      }
    }),
});

test("tape write gives pipes a record with each write", async () => {
  await withSite(async ({ site }) => {
    class Tape extends Terminal {
      readonly records: number[] = [];
      override write(bytes: Uint8Array): void {
        this.records.push(bytes.length);
      }
    }
    for (const [size, recordBytes] of [["10KiB", 10_240], ["64KiB", 65_536], ["2MiB", 2 ** 21]]) {
      const tape = new Tape();
      const args = ["tape", "write", site, "june3", "--record-size", `${size}`, "-o", "-"];
      assertEquals(await main(args, tape), 0);
      assert(tape.records.length > 1 && tape.records.every((bytes) => bytes === recordBytes));
    }
  });
});

test("tape commands refuse what cannot be with what can", async () => {
  await withSite(async ({ directory, site, copy }) => {
    const out = `${directory}/x`;
    const write = ["tape", "write", site, "june3", "-o", out];
    await fails(
      2,
      /records of 1000 bytes: a record has 512 to 16777216/,
      ...write,
      "--record-size",
      "1000",
    );
    await fails(
      2,
      /segments of 4096 bytes: .* the least is 65536/,
      ...write,
      "--segment-size",
      "4KiB",
    );
    await fails(2, /--only 'x': it is no list of numbers/, ...write, "--only", "x");
    await fails(2, /--only '3-1': it is no list/, ...write, "--only", "3-1");
    await fails(2, /Cannot write JSON/, "tape", "write", site, "june3", "-o", "-", "--json");
    await fails(
      2,
      /is the volume that the image is of/,
      "tape",
      "write",
      site,
      "june3",
      "-o",
      `${site}:/x`,
    );
    await fails(1, /'june9'/, "tape", "write", site, "june9", "-o", out);
    assertEquals(names(directory), ["site.vol", "tree"]);

    const image = ["image", site, "june3"];
    await fails(2, /several -o need --split-size or --split-vbn/, ...image, "-o", out, "-o", copy);
    await fails(
      2,
      /exclude each other/,
      ...image,
      "--split-size",
      "1MiB",
      "--split-vbn",
      "9",
      "-o",
      out,
    );
    await fails(2, /parts need names/, ...image, "--split-size", "1MiB");
    await fails(2, /takes single numbers/, ...image, "--split-vbn", "5-9", "-o", out);
    await fails(
      2,
      /Cannot split the image at VBN 100: nothing of it/,
      ...image,
      "--split-vbn",
      "200,100",
      "-o",
      out,
    );

    await fails(2, /one of --path and --vbn says what/, "tape", "extract", out, "-o", out);
    await fails(2, /--output is missing/, "tape", "extract", out, "--path", "/a");
    await fails(1, /there is no such file/, "tape", "read", copy, out);
    await fails(1, /there is no such file/, "tape", "list", out);
    await fails(2, /it is a directory/, "tape", "read", copy, directory);
    await fails(4, /does not begin as an image stream does/, "tape", "read", copy, site);
    await fails(
      1,
      /Cannot open .*none.vol: there is no such file/,
      "apply",
      copy,
      `${directory}/none.vol:/x`,
    );
    await fails(2, /as one of several pieces: it is a pipe/, "apply", copy, "-", site);
    assertEquals(names(directory), ["site.vol", "tree"]);
  });
});

test("tape list tells what is there, in words and as JSON", async () => {
  await withSite(async ({ directory, site }) => {
    const out = `${directory}/t`;
    await ok("tape", "write", site, "june3", "--segment-size", "1700KiB", "-o", out);
    const all = [1, 2, 3].map((i) => `${out}.00${i}`);
    const text = await ok("tape", "list", ...all);
    assertMatch(text, /NAME +SEGMENT +IMAGE +BYTES +BLOCKS +VBNS +STATE\n/);
    assertMatch(text, /t\.002 +2 of 3 +'june3' +\d+-\d+ +\d+ +\d+-\d+ +there\n/);
    assertMatch(
      text,
      /'june3' \(.*\) of volume [0-9a-f]{32}, \d+ bytes \(.* MiB\): all of it is here\n/,
    );
    const { images, pieces } = await json("tape", "list", all[0], all[2], "--check");
    assertEquals(images[0].missingSegments, [2]);
    assertEquals(images[0].missing, [{ from: pieces[0].to + 1, to: pieces[1].from - 1 }]);
    assertEquals(pieces.map(({ checked }: never) => checked), [true, true]);
    assertMatch(
      await ok("tape", "list", all[0], all[2]),
      /not here are bytes \d+-\d+ \(1 segment: 2\)/,
    );
    await ok("image", site, "june3", "-o", `${out}.img`);
    assertMatch(await ok("tape", "list", `${out}.img`, all[0]), /t\.img +- +'june3' .* there\n/);
    // What cannot be read does not keep the rest from being told.
    const { out: said, err } = await fails(4, /./, "tape", "list", all[0], site, `${out}.no`);
    assertMatch(
      said,
      /t\.001 +1 of 3[^]*site\.vol +- +- +- +- +- +damaged\n[^]*t\.no +- .*damaged/,
    );
    assertMatch(err, /site\.vol, byte 0: Cannot read the image: it does not begin/);
    await serving([site], async (url) => {
      const { images } = await json("tape", "list", `${url}/image?select=june3`);
      assertEquals(images[0].missing, []);
    });
  });
});

test("tape extract gives blocks, files and directories, and reads URLs' own not", async () => {
  await withSite(async ({ directory, site }) => {
    const full = `${directory}/full`;
    const increment = `${directory}/increment`;
    await ok("tape", "write", site, "june3", "--segment-size", "1700KiB", "-o", full);
    await ok("tape", "write", site, "june5 - june3", "-o", increment);
    const media = [1, 2, 3].map((i) => `${full}.00${i}`);
    const { blocks } = parseImage((await volcast("image", site, "june3")).bytes);
    const [a, b] = [...blocks.keys()].filter((vbn) => blocks.has(vbn + 1));
    const got = await volcast(
      "tape",
      "extract",
      ...media,
      "--vbn",
      `${b},${a}-${a + 1}`,
      "-o",
      "-",
    );
    assertEquals(got.bytes, new Uint8Array([b, a, a + 1].flatMap((vbn) => [...blocks.get(vbn)!])));
    assertEquals(got.bytes.length, 3 * BLOCK_SIZE);
    const out = `${directory}/out`;
    await fails(
      1,
      /Cannot read VBN 3: the image has no such block/,
      "tape",
      "extract",
      ...media,
      "--vbn",
      "3",
      "-o",
      out,
    );
    await fails(
      2,
      /2000000 blocks at once/,
      "tape",
      "extract",
      ...media,
      "--vbn",
      "1-2000000",
      "-o",
      out,
    );
    assert(!names(directory).includes("out"));

    assertEquals(await ok("tape", "extract", ...media, "--path", "a", "-o", "-"), "one\n");
    const both = [increment, ...media];
    assertEquals(await ok("tape", "extract", ...both, "--path", "/a", "-o", "-"), "two, longer\n");
    await ok("tape", "extract", ...both, "--path", "/docs/large", "-o", out);
    assertEquals(await Deno.readFile(out), await Deno.readFile(`${directory}/tree/docs/large`));
    await fails(1, /it exists already/, "tape", "extract", ...both, "--path", "/a", "-o", out);
    await ok("tape", "extract", ...both, "--path", "/docs", "-o", `${out}.docs`);
    assertEquals(names(`${out}.docs`), ["large", "more"]);
    await fails(1, /not empty/, "tape", "extract", ...both, "--path", "/docs", "-o", `${out}.docs`);
    await fails(
      1,
      /Cannot find '\/none'/,
      "tape",
      "extract",
      ...both,
      "--path",
      "/none",
      "-o",
      out,
    );
    // One medium is enough for what lies on it and in the index.
    const { pieces } = await json("tape", "list", media[0]);
    await ok("tape", "extract", media[0], "--vbn", String(pieces[0].vbns.first), "-o", "-");
    await fails(
      4,
      /segment 2, 3 of 3 are not there/,
      "tape",
      "extract",
      media[0],
      "--path",
      "/docs/large",
      "-o",
      "-",
    );
    await serving([site], async (url) => {
      const far = `${url}/image?select=june3`;
      await fails(
        2,
        /it is no file of this host\n.*curl/,
        "tape",
        "extract",
        far,
        "--path",
        "/a",
        "-o",
        "-",
      );
    });
  });
});

test("apply takes pieces from servers that know no ranges, change or break off", async () => {
  await withSite(async ({ directory, site, copy }) => {
    const { bytes } = await volcast("image", site, "june3");
    const part = `${directory}/part.img`;
    await Deno.writeFile(part, bytes.subarray(0, 1_000_000));
    const requests: (string | null)[] = [];
    let mode: "whole" | "change" | "short" = "whole";
    const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
      requests.push(request.headers.get("range"));
      const etag = mode === "change" ? `"${requests.length}"` : '"x"';
      const body = mode === "short" ? bytes.slice(0, 2_000_000) : bytes.slice();
      return new Response(new Uint8Array(body), { headers: { etag } });
    });
    const url = `http://127.0.0.1:${server.addr.port}/june3.img`;
    assertEquals((await json("apply", copy, part, url)).name, "june3");
    assert(requests.includes("bytes=1000000-" + (bytes.length - 1)), requests.join());
    await Deno.remove(copy);
    mode = "change";
    await fails(4, /another image is there now[^]*byte 1000000 of/, "apply", copy, part, url);
    mode = "short";
    await fails(4, /2000000 of the image's[^]*bytes 2000000-\d+ of/, "apply", copy, part, url);
    await server.shutdown();
    await Deno.remove(`${copy}.incoming`).catch(() => {});
    await fails(4, /are in none of the pieces/, "apply", copy, part, part);
    assert(!names(directory).includes("copy.vol.incoming"), "it is seen before anything is read");
  });
});

test("image into a volume and tape write end on SIGINT in order: nothing half is left", async () => {
  await inDirectory(async (directory) => {
    const site = `${directory}/site.vol`;
    await ok("init", site, "--size", "512MiB");
    const large = new Uint8Array(200_000_000);
    // No block is equal to another, or a hole.
    const view = new DataView(large.buffer);
    for (let at = 0; at < large.length; at += 4096) view.setUint32(at, at + 1);
    await makeTree(`${directory}/tree`, { large });
    await ok("publish", site, `${directory}/tree`, "--as", "a");
    await ok("init", `${directory}/b.vol`, "--size", "512MiB");
    const interrupted = async (args: string[], begun: () => boolean) => {
      const child = command(args).spawn();
      const output = child.output();
      while (!begun()) await new Promise((resolve) => setTimeout(resolve, 1));
      child.kill("SIGINT");
      const { code, stderr } = await output;
      assertEquals([code, new TextDecoder().decode(stderr)], [130, "volcast: Interrupted\n"]);
    };
    await interrupted(
      ["tape", "write", site, "a", "-o", `${directory}/t`],
      () => names(directory).some((name) => name.endsWith(".part")),
    );
    assertEquals(names(directory), ["b.vol", "site.vol", "tree"]);
    const empty = Deno.statSync(`${directory}/b.vol`).blocks!;
    await interrupted(
      ["image", site, "a", "-o", `${directory}/b.vol:/a.img`],
      () => Deno.statSync(`${directory}/b.vol`).blocks! > empty + 5000,
    );
    assertEquals(await ok("ls", `${directory}/b.vol`), "");
    assertEquals((await json("fsck", `${directory}/b.vol`)).clean, true);
  });
});

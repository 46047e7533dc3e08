import { fails, inDirectory, ok } from "../helpers/cli.ts";

Deno.test("volcast mirror refuses what cannot be, and says what to do", async () => {
  await inDirectory(async (directory) => {
    const volume = `${directory}/site.vol`;
    const to = ["--to", "http://127.0.0.1:1"];
    await ok("init", volume, "--size", "16MiB");
    await fails(2, /not said where to.*--base BASE --into/s, "mirror", volume);
    const base = ["--base", `${directory}/base.img`];
    const into = ["--into", `${directory}/site.mirror`];
    await fails(2, /--base without --into/, "mirror", volume, ...base);
    await fails(2, /--into without --base/, "mirror", volume, ...into);
    await fails(2, /two places at once/, "mirror", volume, ...to, ...base, ...into);
    await fails(
      2,
      /segments: they need a directory.*base\.img\//s,
      ...["mirror", volume, ...base, ...into, "--segment-size", "1MiB"],
    );
    await ok("snapshot", "create", volume, "june3");
    await ok("mirror", volume, ...base, ...into, "--once");
    await fails(2, /no incremental mirror/, "reintegrate", into[1], base[1], "-o", "x");
    await fails(1, /something else is there/, ...[
      "mirror",
      volume,
      ...base,
      "--into",
      volume,
      "--once",
    ]);
    await fails(2, /not an http/, "mirror", volume, "--to", "standby.vol");
    await fails(2, /--mirror-to/, "mirror", "http://127.0.0.1:1", ...to);
    await fails(2, /--every with --once/, "mirror", volume, ...to, "--once", "--every", "1s");
    await fails(2, /--json without --once/, "mirror", volume, ...to, "--json");
    await fails(1, /Cannot reach http:\/\/127.0.0.1:1/, "mirror", volume, ...to, "--once");
  });
});

Deno.test("volcast serve refuses roles that exclude each other", async () => {
  await inDirectory(async (directory) => {
    const volume = `${directory}/site.vol`;
    await ok("init", volume, "--size", "16MiB");
    const serve = ["serve", volume, "--listen", "127.0.0.1:0"];
    const url = "http://127.0.0.1:1";
    await fails(2, /be a standby without a name/, ...serve, "--standby");
    await fails(
      2,
      /--parent and --standby/,
      ...[...serve, "--standby", "--site", "a", "--parent", url],
    );
    await fails(
      2,
      /--standby and --mirror-to/,
      ...[...serve, "--standby", "--site", "a", "--mirror-to", url],
    );
    await fails(2, /not an http/, ...serve, "--mirror-to", `${url},ftp://x`);
    await fails(1, /be a standby: .* is an origin/, ...serve, "--standby", "--site", "a");
  });
});

import { assertEquals } from "@std/assert";
import { exists } from "../../src/volume/mod.ts";
import { inDirectory, makeSite, ok } from "../helpers/cli.ts";
import { test } from "../helpers/strict.ts";

test("an image that is written to a file has its name for good when the command ends", () =>
  inDirectory(async (directory) => {
    const site = await makeSite(directory);
    const path = `${directory}/images/june3.vci`;
    await Deno.mkdir(`${directory}/images`);
    const { openSync } = Deno;
    const synced: boolean[] = [];
    Deno.openSync = (name, options) => {
      const file = openSync(name, options);
      if (name !== `${directory}/images`) return file;
      const syncSync = file.syncSync.bind(file);
      file.syncSync = () => {
        syncSync();
        synced.push(exists(path));
      };
      return file;
    };
    try {
      await ok("image", site, "june3", "-o", path);
    } finally {
      Deno.openSync = openSync;
    }
    assertEquals(synced, [true]);
  }));

test("what a killed writer left is removed by the next, and not what another is writing", () =>
  inDirectory(async (directory) => {
    const site = await makeSite(directory);
    const path = `${directory}/june3.vci`;
    const names = () => [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
    const before = names();
    const part = (name: string) => `${directory}/${name}`;
    const others = ["other.vci.01234567.part", "june3.vci.part", "june3.vci.0123456789.part"];
    for (const name of ["june3.vci.01234567.part", "june3.vci.89abcdef.part", ...others]) {
      Deno.writeTextFileSync(part(name), "half");
    }
    // Another process has this one: locks are a file's, not a process's.
    using held = Deno.openSync(part("june3.vci.89abcdef.part"), { write: true });
    held.lockSync(true);
    await ok("image", site, "june3", "-o", path);
    const kept = [...others, "june3.vci.89abcdef.part", "june3.vci"];
    assertEquals(names(), [...before, ...kept].sort());
    held.unlockSync();
    await ok("image", site, "june3", "-o", path, "--force");
    assertEquals(names(), [...before, ...others, "june3.vci"].sort());
  }));

test("a writer holds what it writes until that has its name", () =>
  inDirectory(async (directory) => {
    const site = await makeSite(directory);
    const { rename } = Deno;
    const locked: boolean[] = [];
    Deno.rename = (from, to) => {
      using file = Deno.openSync(from, { write: true });
      locked.push(!file.tryLockSync(true));
      return rename(from, to);
    };
    try {
      await ok("image", site, "june3", "-o", `${directory}/june3.vci`);
    } finally {
      Deno.rename = rename;
    }
    assertEquals(locked, [true]);
  }));

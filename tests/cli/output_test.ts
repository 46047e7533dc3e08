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

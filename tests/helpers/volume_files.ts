/**
 * Releases for volumes in files, and what they refuse.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { type ErrorKind, VolcastError } from "../../src/core/mod.ts";
import type { Volume } from "../../src/volume/mod.ts";
import { Random } from "./random.ts";

/** Something must be refused as `kind`, with words that match. */
export async function refusal(
  work: () => unknown,
  kind: ErrorKind,
  says = /./,
): Promise<VolcastError> {
  const error = await assertRejects(async () => await work(), VolcastError);
  assertEquals(error.kind, kind, error.message);
  assert(says.test(`${error.message}\n${error.hint}`), `${error.message}\n${error.hint}`);
  return error;
}

/** Ten new files of up to `most` bytes, and the snapshot `s<seed>` with them. */
export async function fill(volume: Volume, seed: number, most = 60_000): Promise<void> {
  const random = new Random(seed);
  await volume.exclusive(async (writer) => {
    for (let i = 0; i < 10; i++) {
      const ino = writer.fs.create(2, `file${seed}-${i}`, { type: "file" });
      writer.fs.write(ino, 0, random.bytes(random.below(most)));
    }
    await writer.takeSnapshot(`s${seed}`, { pointers: ["master"] });
  });
}

/**
 * `volcast init`: makes a new, empty volume.
 *
 * @module
 */

import { z } from "zod";
import { BLOCK_SIZE, MAX_BLOCKS, MIN_BLOCKS } from "../../format/mod.ts";
import { createVolumeFile } from "../../volume/mod.ts";
import { defineCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { requirePath } from "../local_volume.ts";
import { BYTE_SIZE, showExactBytes } from "../units.ts";

const LEAST_BYTES = MIN_BLOCKS * BLOCK_SIZE;
const MOST_BYTES = MAX_BLOCKS * BLOCK_SIZE;

const SCHEMA = z.object({
  size: BYTE_SIZE.refine(
    (size) => size >= LEAST_BYTES && size <= MOST_BYTES,
    { error: "the least is 1MiB, the most 16TiB" },
  ),
  json: z.boolean().optional(),
});

/** See the module. */
export const initCommand = defineCommand({
  name: ["init"],
  summary: "make a new, empty volume",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `The file is sparse: it takes only the room of what is written to it. Sizes are written as
4GiB, 512MiB, 64K or a number of bytes, from 1MiB to 16TiB; K, M, G and T mean the same as KiB, MiB,
GiB and TiB. The size is rounded up to whole blocks of 4096 bytes.

Replicas are not made with this: serve, pull and apply make them from their parent's image.`,
  examples: ["volcast init site.vol --size 4GiB"],
  options: {
    size: { value: "SIZE", alias: "s", help: "size of the volume; needed" },
    json: { help: "say what was made as JSON" },
  },
  schema: SCHEMA,
  async run([path], options, terminal): Promise<number> {
    requirePath(path, {
      action: "make a volume at",
      reason: "a volume is a file of the host it is on",
      hint: "Give a path, then serve it: volcast serve",
    });
    const volume = await createVolumeFile(path, options.size);
    try {
      const made = {
        path,
        id: volume.volumeId,
        capacityBlocks: volume.zone.capacity,
        capacityBytes: volume.zone.capacity * BLOCK_SIZE,
        freeBlocks: volume.freeBlocks,
      };
      if (options.json) terminal.printJson(made);
      else terminal.print(`Made ${path}: ${showExactBytes(made.capacityBytes)}, volume ${made.id}`);
    } finally {
      await volume.close();
    }
    return EXIT_CODES.done;
  },
});

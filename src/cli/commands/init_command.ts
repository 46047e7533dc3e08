/**
 * `volcast init`: makes a new, empty volume.
 *
 * @module
 */

import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import { BLOCK_SIZE, MAX_BLOCKS, MIN_BLOCKS } from "../../format/mod.ts";
import { createVolumeFile } from "../../volume/mod.ts";
import { defineCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { requirePath } from "../local_volume.ts";
import { BYTE_SIZE, showExactBytes } from "../units.ts";

const LEAST_BYTES = MIN_BLOCKS * BLOCK_SIZE;
const MOST_BYTES = MAX_BLOCKS * BLOCK_SIZE;

const SCHEMA = z.object({
  stripe: z.string().optional(),
  packed: z.boolean().optional(),
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
  usage: "VOLUME | --stripe A,B,C",
  positionals: [0, 1],
  details:
    `The file is sparse: it takes only the room of what is written to it. Sizes are written as
4GiB, 512MiB, 64K or a number of bytes, from 1MiB to 16TiB; K, M, G and T mean the same as KiB, MiB,
GiB and TiB. The size is rounded up to whole blocks of 4096 bytes.

With --stripe the volume lies in several files, 1 MiB in each in turn, so that reading and writing
use all the disks that they are on. From then on it is named by any one of them, or by all:
a.vol,b.vol,c.vol. With --packed its file is not as long as the volume, but only as what is in it.

Replicas are not made with this: serve, pull, apply and copy make them from their parent's image.`,
  examples: [
    "volcast init site.vol --size 4GiB",
    "volcast init --stripe /disk1/a.vol,/disk2/b.vol,/disk3/c.vol --size 1TiB",
  ],
  options: {
    stripe: { value: "A,B,C", help: "spread the volume over these files, in this order" },
    packed: { help: "keep the volume's blocks in a file without gaps" },
    size: { value: "SIZE", alias: "s", help: "size of the volume; needed" },
    json: { help: "say what was made as JSON" },
  },
  schema: SCHEMA,
  async run([volumePath], options, terminal): Promise<number> {
    const path = pathOf(volumePath, options);
    requirePath(path, {
      action: "make a volume at",
      reason: "a volume is a file of the host it is on",
      hint: "Give a path, then serve it: volcast serve",
    });
    const kind = options.stripe !== undefined ? "striped" : options.packed ? "packed" : "plain";
    const volume = await createVolumeFile(path, options.size, { kind });
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

function pathOf(path: string | undefined, options: z.output<typeof SCHEMA>): string {
  const { stripe, packed } = options;
  const problem = path === undefined && stripe === undefined
    ? "no path is given"
    : path !== undefined && stripe !== undefined
    ? `two are given, ${path} and --stripe ${stripe}`
    : stripe !== undefined && packed
    ? "--stripe and --packed exclude each other"
    : undefined;
  if (problem === undefined) return stripe ?? path!;
  throw new VolcastError(
    "usage",
    `Cannot make a volume: ${problem}`,
    "Write: volcast init VOLUME --size 4GiB, or: volcast init --stripe a.vol,b.vol,c.vol --size 4GiB",
  );
}

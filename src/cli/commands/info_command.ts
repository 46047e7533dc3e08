/**
 * `volcast info`: what a volume is.
 *
 * @module
 */

import { z } from "zod";
import { PAGE_BITS } from "../../core/mod.ts";
import { BLOCK_SIZE, byteSize, VOLUME_FORMAT_VERSION } from "../../format/mod.ts";
import {
  type LocalState,
  peekMirrorFile,
  type PlaneBlocks,
  type PlaneSize,
  planeSpace,
  type Volume,
  type VolumeFileInfo,
  volumeFileInfo,
} from "../../volume/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { isUrl } from "../local_volume.ts";
import { type MirrorPath, mirrorPathOf, openVolume } from "../open_volume.ts";
import { type Rows, statusText, volumeRows } from "../status_text.ts";
import { openTarget } from "../target.ts";
import { counted, fields, table } from "../text.ts";
import { showBytes, showExactBytes } from "../units.ts";
import { type VolumeStatus, volumeStatus } from "../../http/mod.ts";

/** What planes take on disk. */
interface Measured extends PlaneBlocks {
  /** Of pages and pointers. */
  readonly bytes: number;
  /** Bits in the pages for each block of the volume, used or not. */
  readonly bitsPerBlock: number;
}

/** What is said beyond the status. */
interface Info extends VolumeStatus {
  readonly path: string;
  readonly formatVersion: number;
  readonly blockSize: number;
  /** The file or files: how the volume lies in them, and what they take on disk where the host tells. */
  readonly file: VolumeFileInfo;
  /** Of an incremental mirror: what it stands on, and what is in its own file. */
  readonly mirror: {
    readonly base: string;
    /** Id of the base's top. */
    readonly top: string;
    /** Blocks of the file system that came after the base. */
    readonly newerBlocks: number;
    readonly newerBytes: number;
  } | null;
  readonly superblock: { readonly sequence: number; readonly slot: number };
  /** First VBN under planes. */
  readonly dataStart: number;
  readonly localZone: {
    readonly start: number;
    readonly blocks: number;
    /** Room for the state of this node. */
    readonly stateBytes: number;
    readonly sites: LocalState["sites"];
    readonly transfer: NonNullable<LocalState["transfer"]> | null;
  };
  /** What planes take on disk: what several file systems share is counted once. */
  readonly planeSpace: {
    /** All block maps: that of the active file system and of each snapshot. */
    readonly blockMaps: Measured;
    /** The sum of the planes of all snapshots. */
    readonly summary: Measured;
    readonly shadows: Measured;
    /** Summaries and shadow planes as they were, kept by snapshots. */
    readonly older: Measured;
    readonly planes: readonly (PlaneSize & { readonly bitsPerBlock: number })[];
  };
}

/** See the module. */
export const infoCommand = defineRemoteCommand({
  name: ["info"],
  summary: "say what a volume is: size, role, versions, room, sites",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `Planes are measured by walking them: pages of bits and blocks of pointers to them, each block
once. A bit a block is 32 KiB for each GiB of the volume. For a server this is what status says.`,
  examples: ["volcast info site.vol", "volcast info paris.vol --json"],
  options: { json: { help: "as JSON" } },
  schema: z.object({ json: z.boolean().optional() }),
  async run([name], options, terminal): Promise<number> {
    if (isUrl(name)) {
      await using target = await openTarget(name, options);
      const status = await target.status();
      if (options.json) terminal.printJson(status);
      else terminal.print(statusText(status));
      return EXIT_CODES.done;
    }
    const volume = await openVolume(name);
    try {
      const info = infoOf(volume, name);
      if (options.json) terminal.printJson(info);
      else terminal.print(textOf(info));
    } finally {
      await volume.close();
    }
    return EXIT_CODES.done;
  },
});

function infoOf(volume: Volume, path: string): Info {
  const { zone, local, superblock } = volume;
  const mirror = mirrorPathOf(path);
  const { kind, files, bytes, allocatedBytes } = volumeFileInfo(mirror?.mirror ?? path);
  return {
    path,
    formatVersion: VOLUME_FORMAT_VERSION,
    blockSize: BLOCK_SIZE,
    ...volumeStatus(volume),
    file: { bytes, allocatedBytes, kind, files },
    mirror: mirror === undefined ? null : mirrorOf(mirror),
    superblock: { sequence: superblock.sequence, slot: superblock.sequence % 2 },
    dataStart: zone.data.start,
    localZone: {
      start: zone.owner.start,
      blocks: zone.data.start - zone.owner.start,
      stateBytes: byteSize(zone.localSlots[0]),
      sites: local.sites,
      transfer: local.transfer ?? null,
    },
    planeSpace: spaceOf(volume),
  };
}

/** What is in the file of a mirror. */
function mirrorOf({ mirror, base }: MirrorPath): Info["mirror"] {
  const { base: { top }, dataBlocks } = peekMirrorFile(mirror)!;
  return { base, top, newerBlocks: dataBlocks, newerBytes: dataBlocks * BLOCK_SIZE };
}

function spaceOf(volume: Volume): Info["planeSpace"] {
  const { planes, blockMaps, summary, shadows, older } = planeSpace(volume);
  const bits = (pages: number) => pages * PAGE_BITS / volume.zone.capacity;
  const measured = (blocks: PlaneBlocks): Measured => ({
    ...blocks,
    bytes: (blocks.pages + blocks.pointers) * BLOCK_SIZE,
    bitsPerBlock: bits(blocks.pages),
  });
  return {
    blockMaps: measured(blockMaps),
    summary: measured(summary),
    shadows: measured(shadows),
    older: measured(older),
    planes: planes.map((plane) => ({ ...plane, bitsPerBlock: bits(plane.pages) })),
  };
}

function textOf(info: Info): string {
  const { file, localZone, superblock } = info;
  const allocated = file.allocatedBytes === null
    ? ""
    : `, ${showBytes(file.allocatedBytes)} of it on disk`;
  const rows = fields([
    ["path", info.path],
    ["format", `version ${info.formatVersion}, blocks of ${info.blockSize} bytes`],
    ["file", showExactBytes(file.bytes) + allocated],
    ["layout", layoutText(file)],
    ["mirror of", info.mirror === null ? undefined : `${info.mirror.base} (${info.mirror.top})`],
    [
      "newer",
      info.mirror === null
        ? undefined
        : `${counted(info.mirror.newerBlocks, "block")}, ${showExactBytes(info.mirror.newerBytes)}`,
    ],
    ...volumeRows(info),
    ["superblock", `number ${superblock.sequence}, in slot ${superblock.slot}`],
    [
      "local zone",
      `${localZone.blocks} blocks from VBN ${localZone.start}, data from VBN ${info.dataStart}`,
    ],
    ["transfer", localZone.transfer ? transferText(localZone.transfer) : undefined],
    ...planeRows(info.planeSpace),
  ]) + `\n\n${planeTable(info.planeSpace.planes)}`;
  const sites = Object.entries(localZone.sites);
  if (sites.length === 0) return rows;
  const columns = [{ head: "SITE" }, { head: "STANDS ON" }, { head: "CONFIRMED" }];
  return `${rows}\n\n${
    table(
      columns,
      sites.map(([name, { snapshot, confirmedAt }]) => [
        name,
        snapshot ?? "nothing yet",
        confirmedAt === undefined ? "never" : new Date(confirmedAt).toISOString(),
      ]),
    )
  }`;
}

function planeRows({ planes, blockMaps, summary, shadows, older }: Info["planeSpace"]): Rows {
  const text = ({ bytes, bitsPerBlock }: Measured) =>
    bytes === 0 ? "none" : `${showExactBytes(bytes)}, ${showBits(bitsPerBlock)} a block`;
  const count = planes.filter(({ kind }) => kind !== "shadow").length;
  return [
    ["block maps", `${text(blockMaps)}, for ${counted(count, "file system")}`],
    ["summary", text(summary)],
    ["shadow planes", text(shadows)],
    ["older planes", `${text(older)}, of the two above, kept by snapshots`],
  ];
}

function planeTable(planes: Info["planeSpace"]["planes"]): string {
  const columns = [
    { head: "PLANE" },
    { head: "KIND" },
    { head: "BLOCKS", align: "right" },
    { head: "BITS A BLOCK", align: "right" },
  ] as const;
  const rows = planes.map(({ name, kind, blocks, bitsPerBlock }) => [
    name,
    kind,
    String(blocks),
    bitsPerBlock.toFixed(2),
  ]);
  return table(columns, rows);
}

function showBits(bits: number): string {
  return `${bits.toFixed(2)} bits`;
}

/** How a volume lies in its files, where that is not one block behind the other in one. */
function layoutText({ kind, files }: VolumeFileInfo): string | undefined {
  if (kind === "plain") return undefined;
  return kind === "packed" ? "packed" : `striped over ${files.join(", ")}`;
}

function transferText({ top, base, frames }: NonNullable<LocalState["transfer"]>): string {
  return `${base === undefined ? "full image of" : `increment from ${base} to`} ${top}: ` +
    `${frames} frames have come`;
}

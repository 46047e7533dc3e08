/**
 * What `/status` says, for reading by people. Whatever a server leaves out is left out here.
 *
 * @module
 */

import { z } from "zod";
import { shortList } from "../core/mod.ts";
import type { Flushed } from "../volume/mod.ts";
import { counted, fields, showName } from "./text.ts";
import { showBytes, showExactBytes } from "./units.ts";

const count = z.number();
const SNAPSHOT = z.object({ id: z.string(), name: z.string(), time: z.string(), bytes: count });

/** The parts of a status that are shown. */
const STATUS = z.object({
  version: z.string().optional(),
  node: z.string().optional(),
  chain: z.array(z.string()).optional(),
  ready: z.boolean().optional(),
  upstream: z.object({
    parent: z.string(),
    name: z.string().nullish(),
    seenAt: z.string().nullish(),
    error: z.string().nullish(),
  }).nullish(),
  transfer: z.object({ top: z.string(), done: count, total: count }).nullish(),
  mirrors: z.array(z.object({
    to: z.string(),
    phase: z.string(),
    standsOn: z.object({ id: z.string(), name: z.string() }).nullish(),
    succeededAt: z.string().nullish(),
    lagBytes: count.nullish(),
    error: z.string().nullish(),
  })).optional(),
  pull: z.object({
    phase: z.string(),
    since: z.string(),
    parent: z.string().nullish(),
    succeededAt: z.string().nullish(),
    failures: count,
  }).nullish(),
  scrub: z.object({
    startedAt: z.string().nullish(),
    completedAt: z.string().nullish(),
    checkedBlocks: count,
    healedBlocks: count,
    badBlocks: count,
    affected: z.array(z.string()),
  }).nullish(),
  standby: z.object({ coming: z.object({ top: z.string(), state: z.string() }).optional() })
    .optional(),
  volume: z.object({
    id: z.string(),
    role: z.string(),
    epoch: count.optional(),
    capacityBytes: count,
    usedBlocks: count,
    freeBlocks: count.nullish(),
    inodes: count,
    cp: count,
    writeError: z.string().nullish(),
  }).nullish(),
  current: SNAPSHOT.nullish(),
  master: SNAPSHOT.nullish(),
  localChanges: z.object({ files: count, snapshots: z.array(z.string()).readonly() }).nullish(),
  snapshots: count.optional(),
  shadows: count.optional(),
  sites: count.optional(),
  pinnedBytes: z.record(z.string(), count).optional(),
  pinBudgetBytes: count.nullish(),
});

/** Rows for {@linkcode fields}. */
export type Rows = (readonly [name: string, value: string | undefined])[];

/** A status in lines of name and value. */
export function statusText(value: unknown): string {
  const parsed = STATUS.safeParse(value);
  // A server of another version: better everything it says than nothing.
  if (!parsed.success) return JSON.stringify(value, null, 2);
  const { version, node, chain, ready, upstream, transfer, standby, volume } = parsed.data;
  const seen = upstream?.seenAt ? `, heard ${upstream.seenAt}` : "";
  return fields([
    ["node", node === undefined ? undefined : `${node}, volcast ${version ?? "?"}`],
    ["ready", ready === undefined ? undefined : ready ? "yes" : "no"],
    ["chain", chain === undefined || chain.length < 2 ? undefined : chain.join(" <- ")],
    [
      "parent",
      upstream
        ? `${upstream.parent}${upstream.name ? ` at '${upstream.name}'` : ""}${seen}`
        : undefined,
    ],
    ...pullRows(parsed.data.pull),
    ["last failure", upstream?.error ? showName(upstream.error) : undefined],
    [
      "transfer",
      transfer
        ? `${transfer.top}: ${showBytes(transfer.done)} of ${showBytes(transfer.total)}`
        : undefined,
    ],
    ["standby", standby === undefined ? undefined : "takes what a mirror sends"],
    ...(parsed.data.mirrors ?? []).flatMap(mirrorRows),
    ...scrubRows(parsed.data.scrub),
    ["volume", volume === null ? "none yet: the first full image has not come in" : undefined],
    ...volumeRows(parsed.data),
  ]);
}

function pullRows(pull: z.output<typeof STATUS>["pull"]): Rows {
  if (!pull) return [];
  const { phase, since, parent, succeededAt, failures } = pull;
  const whom = parent ? ` ${parent}` : "";
  return [
    ["up to date", succeededAt ? `when last asked, ${succeededAt}` : "not yet"],
    ["pulling", phase === "idle" ? undefined : `${phase}${whom} since ${since}`],
    ["failing", failures === 0 ? undefined : `${counted(failures, "pull")} in a row`],
  ];
}

function mirrorRows(mirror: NonNullable<z.output<typeof STATUS>["mirrors"]>[number]): Rows {
  const { to, phase, standsOn, succeededAt, lagBytes, error } = mirror;
  const at = standsOn ? ` at '${standsOn.name}'` : "";
  const lag = typeof lagBytes === "number" ? `, ${showBytes(lagBytes)} behind` : "";
  return [
    ["mirror to", `${to}${at}${lag}${phase === "idle" ? "" : `, ${phase}`}`],
    ["up to date", succeededAt ? `when last asked, ${succeededAt}` : "not yet"],
    ["last failure", error ? showName(error) : undefined],
  ];
}

function scrubRows(scrub: z.output<typeof STATUS>["scrub"]): Rows {
  if (!scrub) return [];
  const { startedAt, completedAt, checkedBlocks, healedBlocks, badBlocks, affected } = scrub;
  const state = startedAt ? `since ${startedAt}` : "idle";
  return [
    ["scrub", `${state}, ${counted(checkedBlocks, "block")} looked at`],
    ["all looked at", completedAt ?? "not yet"],
    ["healed", healedBlocks === 0 ? undefined : counted(healedBlocks, "block")],
    ["bad", badBlocks === 0 ? undefined : counted(badBlocks, "block")],
    ["bad in", affected.length === 0 ? undefined : shortList(affected.map(showName))],
  ];
}

/** The rows about the volume. */
export function volumeRows(status: z.output<typeof STATUS>): Rows {
  const { volume, current, master, localChanges, snapshots, shadows, sites } = status;
  if (!volume) return [];
  return [
    ["volume", volume.id],
    ["role", volume.role],
    ["written", volume.writeError ? `no: ${showName(volume.writeError)}` : undefined],
    ["epoch", volume.epoch === undefined ? undefined : String(volume.epoch)],
    ["size", showExactBytes(volume.capacityBytes)],
    ["used", `${volume.usedBlocks} blocks (${showBytes(volume.usedBlocks * 4096)})`],
    [
      "free",
      typeof volume.freeBlocks !== "number"
        ? undefined
        : `${volume.freeBlocks} blocks (${showBytes(volume.freeBlocks * 4096)})`,
    ],
    ["files", `${volume.inodes} inodes`],
    ["cp", String(volume.cp)],
    ["current", current ? showSnapshot(current) : undefined],
    ["master", master ? showSnapshot(master) : "none: publish moves it"],
    ["local changes", localChanges ? showChanges(localChanges) : undefined],
    ["snapshots", snapshots === undefined ? undefined : String(snapshots)],
    ["shadows", shadows ? String(shadows) : undefined],
    ["sites", sites === undefined ? undefined : String(sites)],
    ...pinRows(status),
  ];
}

/** What sites keep, the greatest first. */
function pinRows({ pinnedBytes = {}, pinBudgetBytes }: z.output<typeof STATUS>): Rows {
  const rows = Object.entries(pinnedBytes).filter(([, byteCount]) => byteCount > 0)
    .sort(([, a], [, b]) => b - a)
    .map(([site, byteCount]) => [`kept by ${site}`, showExactBytes(byteCount)] as const);
  return [
    ...rows,
    ["pin budget", pinBudgetBytes ? `${showExactBytes(pinBudgetBytes)} a site` : undefined],
  ];
}

function showChanges({ files, snapshots }: Flushed): string {
  const taken = snapshots.length === 0 ? "" : `, with the snapshots ${snapshots.join(", ")}`;
  return `${counted(files, "file")}${taken}; the next image takes them away`;
}

function showSnapshot({ id, name, time, bytes }: z.output<typeof SNAPSHOT>): string {
  return `${name} (${id}), ${time}, ${showBytes(bytes)}`;
}

/**
 * `volcast repair`: fetches the blocks that rotted from other nodes.
 *
 * @module
 */

import { z } from "zod";
import { messageOf, VolcastError } from "../../core/mod.ts";
import { BLOCK_SIZE, snapshotId } from "../../format/mod.ts";
import { HttpPeer } from "../../http/mod.ts";
import {
  type BadBlock,
  badBlocks,
  type CheckedRoot,
  healFrom,
  listOfBlocks,
  type Patient,
  rootsOf,
} from "../../image/mod.ts";
import type { BlockStore } from "../../store/mod.ts";
import { openOwned, openVolumeFile, readSuperblock } from "../../volume/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import type { WithCredentials } from "../credentials.ts";
import { EXIT_CODES } from "../exit.ts";
import { interruptible } from "../interrupt.ts";
import { requirePath } from "../local_volume.ts";
import { PARENT_URL } from "../schemas.ts";
import type { Terminal } from "../terminal.ts";
import { counted } from "../text.ts";
import { showBytes } from "../units.ts";

/** Looks at a volume before what is left is given up: each may show what is below a healed block. */
const MAX_ROUNDS = 64;

/** See the module. */
export const repairCommand = defineRemoteCommand({
  name: ["repair"],
  summary: "fetch the blocks of a volume that rotted from other nodes",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `Every block is read and compared with the checksum beside the pointer to it. What is not as it should
be is asked for, just those blocks, at the nodes named with --from, in their order: parents, sites, mirrors,
copies that are served. Any that holds a snapshot with the block has it. A block is written only if it is what
the pointer says. When nothing is wrong, the exit code is 3; 4 when something could not be healed.`,
  examples: ["volcast repair paris.vol --from http://origin:8080 --from http://lyon:8080"],
  options: {
    from: { value: "URL", list: true, help: "a node that may have them; may be repeated" },
    json: { help: "say what was done as JSON" },
  },
  schema: z.object({
    from: z.array(PARENT_URL).min(1, "at least one node is needed"),
    json: z.boolean().optional(),
  }),
  async run([path], options, terminal): Promise<number> {
    requirePath(path, {
      action: "repair",
      reason: "a volume is repaired on its host while nobody serves it",
      hint: "Stop the server and give the volume's path",
    });
    const done = await interruptible((signal) =>
      repair(path, options.from, { ...options, signal, terminal })
    );
    const { healed, superblocks, left } = done;
    if (options.json) {
      terminal.printJson({
        healed: healed.size,
        superblocks,
        from: Object.fromEntries(done.from),
        left: [...left.values()].map(({ vbn, snapshot }) => ({ vbn, snapshot: snapshot.name })),
      });
    } else terminal.print(textOf(path, done));
    if (left.size > 0) return EXIT_CODES.damaged;
    return healed.size + superblocks.length > 0 ? EXIT_CODES.done : EXIT_CODES.nothing;
  },
});

interface Done {
  readonly healed: Set<number>;
  /** Superblocks that were written from the other one. */
  readonly superblocks: number[];
  /** Blocks healed by URL. */
  readonly from: Map<string, number>;
  left: ReadonlyMap<number, BadBlock>;
}

/** What is looked at and healed: a volume, or the store of one that cannot be opened as it is. */
interface Opened extends Patient {
  readonly volumeId: string;
  readonly store: BlockStore;
  readonly roots: readonly CheckedRoot[];
  /** Writes bad superblocks from the one in force. @returns Where. */
  healSuperblocks(): Promise<readonly number[]>;
  close(): void | Promise<void>;
}

async function repair(
  path: string,
  urls: readonly string[],
  context: WithCredentials & { signal: AbortSignal; terminal: Terminal },
): Promise<Done> {
  const { credentials } = context;
  credentials.nameServers(urls);
  const peers = urls.map((url) => new HttpPeer(url, { credentials }));
  const done: Done = { healed: new Set(), superblocks: [], from: new Map(), left: new Map() };
  for (let round = 0;; round++) {
    context.signal.throwIfAborted();
    const opened = open(path);
    try {
      for (const vbn of await opened.healSuperblocks()) done.superblocks.push(vbn);
      done.left = look(opened);
      if (done.left.size === 0 || round === MAX_ROUNDS) return done;
      if (await heal(opened, peers, done, context) === 0) return done;
    } finally {
      await opened.close();
    }
  }
}

/** @throws {VolcastError} Where there is not even a superblock. */
function open(path: string): Opened {
  try {
    const volume = openVolumeFile(path);
    return {
      volumeId: volume.volumeId,
      store: volume.io.store,
      roots: rootsOf(volume),
      heal: (pointer, bytes) => volume.heal(pointer, bytes),
      syncHealed: () => volume.syncHealed(),
      healSuperblocks: () => volume.healSuperblocks(),
      close: () => volume.close(),
    };
  } catch (error) {
    if (!(error instanceof VolcastError) || error.kind !== "damaged") throw error;
    return openStore(path, error);
  }
}

/** A volume whose root, or tables, are bad: what its superblock points at is healed first. */
function openStore(path: string, reason: VolcastError): Opened {
  const store = openOwned(path);
  try {
    const { volumeId, cp, root, applied, remap } = readSuperblock(store);
    // With staged blocks VBNs are not where they lie.
    if (remap !== undefined) throw reason;
    return {
      volumeId,
      store,
      roots: [{ id: snapshotId({ cp, root }), name: applied?.name ?? "active", root }],
      heal: ({ vbn }, bytes) => store.write(vbn, bytes),
      syncHealed: () => store.sync(),
      // Once its root is good, it is opened as a volume.
      healSuperblocks: () => Promise.resolve([]),
      close: () => store.close(),
    };
  } catch (error) {
    store.close();
    throw error;
  }
}

/** Asks one node after the other. @returns How many blocks came. */
async function heal(
  opened: Opened,
  peers: readonly HttpPeer[],
  { healed, from, left }: Done,
  { signal, terminal }: { signal: AbortSignal; terminal: Terminal },
): Promise<number> {
  let count = 0;
  const got = new Set<number>();
  for (const peer of peers) {
    const wanted = [...left.values()].filter(({ vbn }) => !got.has(vbn));
    if (wanted.length === 0) break;
    try {
      const refused: number[] = [];
      const vbns = await healFrom(
        { ...opened, refused: (vbn) => void refused.push(vbn) },
        wanted,
        (snapshot, vbns) => peer.blocks(opened.volumeId, snapshot.id, vbns, signal),
      );
      if (refused.length > 0) {
        terminal.note(
          `${peer.name} gave ${
            counted(refused.length, "block")
          } that are not what the pointers to them say`,
        );
      }
      for (const vbn of vbns) {
        got.add(vbn);
        healed.add(vbn);
      }
      if (vbns.length > 0) from.set(peer.name, (from.get(peer.name) ?? 0) + vbns.length);
      count += vbns.length;
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof VolcastError) || !["io", "busy", "denied"].includes(error.kind)) {
        throw error;
      }
      terminal.note(messageOf(error));
    }
  }
  return count;
}

function look({ store, roots }: Opened): Map<number, BadBlock> {
  const steps = badBlocks(store, roots);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

function textOf(path: string, { healed, superblocks, from, left }: Done): string {
  const slots = superblocks.length === 0
    ? []
    : [`${path}: wrote the superblock in VBN ${superblocks.join(", ")} again from the other one`];
  if (healed.size === 0 && left.size === 0) {
    return slots[0] ?? `${path}: every block is as it should be`;
  }
  const sources = [...from].map(([url, count]) => `${counted(count, "block")} from ${url}`);
  const lines = [
    ...slots,
    `${path}: healed ${counted(healed.size, "block")} (${showBytes(healed.size * BLOCK_SIZE)})${
      sources.length === 0 ? "" : `: ${sources.join(", ")}`
    }`,
  ];
  if (left.size > 0) {
    const vbns = [...left.keys()].sort((a, b) => a - b);
    const shown = listOfBlocks(vbns).slice(0, 200);
    lines.push(
      `No node had ${counted(left.size, "block")}: ${shown}`,
      "Name other nodes, or see which files have them: volcast fsck. A full image brings a replica anew",
    );
  }
  return lines.join("\n");
}

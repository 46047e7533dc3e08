/**
 * `volcast mirror`: keeps a standby up to date with a volume as it is written.
 *
 * @module
 */

import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import {
  describeRound,
  keepMirrored,
  Mirror,
  type MirrorResult,
  type MirrorSource,
  type MirrorStatus,
  type Rounds,
  type Standby,
} from "../../replication/mod.ts";
import { openVolumeFile, type Volume } from "../../volume/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import type { WithCredentials } from "../credentials.ts";
import { EXIT_CODES } from "../exit.ts";
import { interruptible } from "../interrupt.ts";
import { requirePath } from "../local_volume.ts";
import { standbysOf } from "../mirroring.ts";
import { NODE_NAME, STANDBY_URL } from "../schemas.ts";
import type { Terminal } from "../terminal.ts";
import { BYTE_SIZE, DURATION_MS } from "../units.ts";

const SCHEMA = z.object({
  to: STANDBY_URL.optional(),
  base: z.string().min(1).optional(),
  into: z.string().min(1).optional(),
  "segment-size": BYTE_SIZE.optional(),
  every: DURATION_MS.optional(),
  once: z.boolean().optional(),
  name: NODE_NAME.optional(),
  full: z.boolean().optional(),
  json: z.boolean().optional(),
});
type Options = z.output<typeof SCHEMA>;
const EVERY_MS = 10_000;

/** See the module. */
export const mirrorCommand = defineRemoteCommand({
  name: ["mirror"],
  summary: "keep a standby up to date with a volume as it is written",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `The standby is a server: volcast serve STANDBY --standby --site NAME. It gets a full image
first, then what changed since, every --every; when nothing changed, nothing is sent. It can be read
at any time, and promoted when the source is lost. A cut transfer goes on where it was.

With --base and --into the mirror is incremental, and needs no server: BASE is a full image on slow
storage, a file, or a directory (its name ends with /) with segments as 'volcast tape write' makes them. It
is made where there is none. MIRROR is a file with what is newer, and takes about the room of what differs.
Both together can be read as a volume, by the name of MIRROR, and restored: volcast reintegrate.

VOLUME is held during a round only: between rounds other commands may change it. A volume that is
being served is mirrored by its server, see volcast serve --mirror-to. With --once, the exit code is
3 when the standby had everything already.`,
  examples: [
    "volcast mirror site.vol --to http://standby:8080 --every 10s",
    "volcast mirror site.vol --to http://127.0.0.1:8082 --once --json",
    "volcast mirror site.vol --base /archive/site/ --segment-size 1GiB --into site.mirror --every 1min",
  ],
  options: {
    to: { value: "URL", help: "the standby" },
    base: { value: "BASE", help: "base of an incremental mirror: an image, or a directory/" },
    into: { value: "MIRROR", help: "file with what is newer than BASE" },
    "segment-size": { value: "SIZE", help: "most bytes of a segment, where BASE is made" },
    every: { value: "TIME", help: "time between rounds; 10s by default" },
    once: { help: "one round, then end" },
    name: { value: "NAME", help: "name of the standby among sites; its own by default" },
    full: { help: "first send everything anew, in place of what the standby has" },
    json: { help: "with --once: say what was done as JSON" },
  },
  schema: SCHEMA,
  async run([path], options: Options & WithCredentials, terminal: Terminal): Promise<number> {
    requirePath(path, {
      action: "mirror",
      reason: "a server mirrors its volume itself",
      hint: "Start it with --mirror-to URL --mirror-every TIME",
    });
    if (options.once ? options.every !== undefined : options.json) {
      throw new VolcastError(
        "usage",
        options.once ? "Cannot use --every with --once" : "Cannot use --json without --once",
        "See: volcast mirror --help",
      );
    }
    return await interruptible(async (signal) => {
      const mirror = new FileMirror(path, oneStandby(options, terminal), options);
      if (options.once) return await once(mirror, options, terminal, signal);
      const log = (text: string) => terminal.note(`${new Date().toISOString()} ${text}`);
      const everyMs = options.every ?? EVERY_MS;
      terminal.print(`Mirroring ${path} to ${mirror.status.to} every ${everyMs / 1000} s`);
      await keepMirrored(mirror, { everyMs, log }, signal);
      return EXIT_CODES.done;
    });
  },
});

/** Where the mirror goes. @throws {VolcastError} `usage` unless it is one place. */
function oneStandby(options: Options & WithCredentials, terminal: Terminal): Standby {
  const { to, base, into } = options;
  const standbys = standbysOf(
    {
      urls: to === undefined ? [] : [to],
      base,
      into,
      segmentBytes: options["segment-size"],
      names: { to: "--to", base: "--base", into: "--into" },
    },
    options.credentials,
    terminal,
  );
  if (standbys.length === 1) return standbys[0];
  throw new VolcastError(
    "usage",
    standbys.length === 0
      ? "Cannot mirror: it is not said where to"
      : "Cannot mirror to two places at once: --to is given, and so is --base",
    "Give --to URL for a standby, or --base BASE --into MIRROR for an incremental mirror",
  );
}

/** A mirror of a volume file that is held during a round only: between rounds others may change it. */
class FileMirror implements MirrorSource, Rounds {
  readonly #path: string;
  readonly #mirror: Mirror;
  volumeIfAny: Volume | undefined;

  constructor(path: string, standby: Standby, options: Options) {
    this.#path = path;
    this.#mirror = new Mirror(this, standby, options);
  }

  get volume(): Volume {
    return this.volumeIfAny ??= openVolumeFile(this.#path);
  }

  get status(): MirrorStatus {
    return this.#mirror.status;
  }

  async round(signal?: AbortSignal): Promise<MirrorResult> {
    try {
      return await this.#mirror.round(signal);
    } finally {
      const volume = this.volumeIfAny;
      this.volumeIfAny = undefined;
      await volume?.close();
    }
  }
}

async function once(
  mirror: FileMirror,
  options: Options,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  let result = await mirror.round(signal);
  // What an earlier run had begun is there now, and may be old.
  if (result.kind !== "nothing" && result.resumed) {
    const next = await mirror.round(signal);
    if (next.kind !== "nothing") result = next;
  }
  if (options.json) terminal.printJson(result);
  else terminal.print(describeRound(mirror, result));
  return result.kind === "nothing" ? EXIT_CODES.nothing : EXIT_CODES.done;
}

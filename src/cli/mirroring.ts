/**
 * Mirroring beside a server.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import { HttpStandby, type Throttle } from "../http/mod.ts";
import {
  keepMirrored,
  Mirror,
  type MirrorLoopOptions,
  type Node,
  type Standby,
} from "../replication/mod.ts";
import { isDirectory, isOfBase } from "./base_image.ts";
import type { CommandCredentials } from "./credentials.ts";
import { IncrementalStandby } from "./incremental_standby.ts";
import { infoOf } from "./output.ts";
import type { Terminal } from "./terminal.ts";

/** What may be said of where a mirror goes. */
export interface MirrorPlaces {
  /** URLs of standbys. */
  readonly urls: readonly string[];
  /** An incremental mirror: where its base is, or is to be made. */
  readonly base?: string | undefined;
  /** The file with what is newer than the base. */
  readonly into?: string | undefined;
  /** Most bytes of a segment of a base that is made. */
  readonly segmentBytes?: number | undefined;
  /** How fast images go to other servers. */
  readonly throttle?: Throttle | undefined;
  /** What the options are called, for messages. */
  readonly names: { readonly to: string; readonly base: string; readonly into: string };
}

/**
 * The standbys that were named.
 * @throws {VolcastError} `usage` for a base without a mirror, or the other way round.
 */
export function standbysOf(
  places: MirrorPlaces,
  credentials: CommandCredentials,
  terminal: Terminal,
): Standby[] {
  const { urls, base, into, segmentBytes, names } = places;
  credentials.nameServers(urls);
  const standbys: Standby[] = urls.map((url) =>
    new HttpStandby(url, { credentials, throttle: places.throttle })
  );
  if ((base === undefined) !== (into === undefined)) {
    const [given, missing] = base === undefined
      ? [names.into, names.base]
      : [names.base, names.into];
    throw new VolcastError(
      "usage",
      `Cannot use ${given} without ${missing}`,
      "An incremental mirror is a base image and a file with what is newer",
    );
  }
  if (segmentBytes !== undefined && (base === undefined || !isDirectory(base))) {
    throw new VolcastError(
      "usage",
      "Cannot make the base in segments: they need a directory",
      `End its name with a slash: ${names.base} ${base ?? "base"}/`,
    );
  }
  if (base !== undefined && into !== undefined) {
    checkPlaces(base, into, names);
    standbys.push(new IncrementalStandby({ base, into, segmentBytes, names }, terminal));
  }
  return standbys;
}

/** A mirror is a file, and another one than its base. @throws {VolcastError} `usage`. */
function checkPlaces(base: string, into: string, names: MirrorPlaces["names"]): void {
  const misuse = (reason: string): never => {
    throw new VolcastError(
      "usage",
      `Cannot mirror into ${into}: ${reason}`,
      `Give ${names.into} the path of a file elsewhere`,
    );
  };
  const info = infoOf(base);
  if (info !== undefined && !info.isFile && !info.isDirectory) {
    throw new VolcastError(
      "usage",
      `Cannot use ${base} as a base: it is neither a file nor a directory`,
      "Its blocks are read one by one, at any place: copy the image into a file",
    );
  }
  if (into.endsWith("/")) misuse("it is a directory");
  if (isOfBase(base, into)) misuse(`it is given for both ${names.base} and ${names.into}`);
}

/** Mirrors a served volume to every standby until `signal` fires; the node's status shows how it goes. */
export async function keepAllMirrored(
  node: Node,
  standbys: readonly Standby[],
  options: MirrorLoopOptions,
  signal: AbortSignal,
): Promise<void> {
  const mirrors = standbys.map((standby) => new Mirror(node, standby));
  node.mirrors.push(...mirrors);
  await Promise.all(mirrors.map((mirror) => keepMirrored(mirror, options, signal)));
}

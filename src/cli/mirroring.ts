/**
 * Mirroring as commands set it up: at the source, alone or beside a server.
 *
 * @module
 */

import { HttpStandby } from "../http/mod.ts";
import { keepMirrored, Mirror, type MirrorOptions, type Node } from "../replication/mod.ts";
import { tokenFromEnvironment } from "./environment.ts";

/** The mirror from a node's volume to the standby at a URL; the node's status shows it. */
export function mirrorTo(node: Node, url: string, options: MirrorOptions = {}): Mirror {
  const mirror = new Mirror(node, new HttpStandby(url, { token: tokenFromEnvironment() }), options);
  node.mirrors.push(mirror);
  return mirror;
}

/** Mirrors a served volume to every URL until `signal` fires. */
export async function keepAllMirrored(
  node: Node,
  urls: readonly string[],
  options: { everyMs: number; log: (text: string) => void },
  signal: AbortSignal,
): Promise<void> {
  await Promise.all(urls.map((url) => keepMirrored(mirrorTo(node, url), options, signal)));
}

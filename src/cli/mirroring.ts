/**
 * Mirroring beside a server.
 *
 * @module
 */

import { HttpStandby } from "../http/mod.ts";
import { keepMirrored, Mirror, type MirrorLoopOptions, type Node } from "../replication/mod.ts";
import { tokenFromEnvironment } from "./environment.ts";

/** Mirrors a served volume to every URL until `signal` fires; the node's status shows how it goes. */
export async function keepAllMirrored(
  node: Node,
  urls: readonly string[],
  options: MirrorLoopOptions,
  signal: AbortSignal,
): Promise<void> {
  const token = tokenFromEnvironment();
  const mirrors = urls.map((url) => new Mirror(node, new HttpStandby(url, { token })));
  node.mirrors.push(...mirrors);
  await Promise.all(mirrors.map((mirror) => keepMirrored(mirror, options, signal)));
}

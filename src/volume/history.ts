/**
 * Where two nodes of one volume stand to each other after takeovers.
 *
 * A takeover makes a replica the source: a new epoch begins at the consistency point behind the snapshot
 * that was applied there. The old source knows nothing of it and may go on in the old epoch; two replicas
 * may even be promoted, each into an epoch of the same number. So each root has the list of the
 * takeovers that led to it, each with its first consistency point and a random mark, and two nodes
 * compare their lists:
 *
 * | the lists                                | the one with the shorter list stands          | relation   |
 * | ---------------------------------------- | --------------------------------------------- | ---------- |
 * | are equal                                | on the same line, before or behind the other  | together   |
 * | one has more, the others are equal       | before the next takeover's first CP: it is only late | older / newer |
 * |                                          | at it or behind it: it went on by itself      | diverged   |
 * | differ in a takeover that both have      |                                               | diverged   |
 *
 * What a node does with it (replication/pull.ts): a parent that knows the node's snapshot is followed. One
 * that does not is followed with a full image only along one line forwards (together, older). A newer node
 * waits for it (behind), and nobody is taken across (diverged: `volcast resync`). So a site that has both
 * the old source and the new one above it may follow the old one only until it has seen the first image of
 * the new epoch; nobody can tell it before that. From then on it never goes back.
 *
 * @module
 */

import type { Takeover } from "../format/mod.ts";

/** A place in a volume's history. */
export interface History {
  readonly epoch: number;
  /** Consistency point of the current root. */
  readonly cp: number;
  /** The newest takeovers, oldest first; the last one began the epoch. */
  readonly takeovers: readonly Takeover[];
}

/** How one history stands to another; see the module. */
export type Relation =
  /** One line: their ids and CPs tell the rest. */
  | "together"
  /** It is an earlier part of the other one's line. */
  | "older"
  /** The other one is an earlier part of its line. */
  | "newer"
  /** Both went on by themselves. */
  | "diverged";

/** How `mine` stands to `theirs`. */
export function relationOf(mine: History, theirs: History): Relation {
  const shared = Math.min(mine.epoch, theirs.epoch);
  for (let epoch = 2; epoch <= shared; epoch++) {
    const [a, b] = [takeoverOf(mine, epoch), takeoverOf(theirs, epoch)];
    // Of very old ones only the number is known.
    if (a !== undefined && b !== undefined && (a.cp !== b.cp || a.mark !== b.mark)) {
      return "diverged";
    }
  }
  if (mine.epoch === theirs.epoch) return "together";
  const isOlder = mine.epoch < theirs.epoch;
  const [late, ahead] = isOlder ? [mine, theirs] : [theirs, mine];
  const next = takeoverOf(ahead, late.epoch + 1);
  if (next === undefined || late.cp >= next.cp) return "diverged";
  return isOlder ? "older" : "newer";
}

/** The takeover that began an epoch, if the root still knows it. */
function takeoverOf({ epoch, takeovers }: History, wanted: number): Takeover | undefined {
  return takeovers[takeovers.length - 1 - (epoch - wanted)];
}

/**
 * The `volcast-epoch` header: `2; cp=14; takeovers=11.0123456789abcdef`. A site that does not find its
 * snapshot at its parent tells from it whether the two went apart.
 *
 * @module
 */

import type { History } from "../volume/mod.ts";

/** As text. */
export function historyHeader({ epoch, cp, takeovers }: History): string {
  const list = takeovers.map((takeover) => `${takeover.cp}.${takeover.mark}`).join(",");
  return `${epoch}; cp=${cp}${list === "" ? "" : `; takeovers=${list}`}`;
}

/** From text; `undefined` when it is none. */
export function parseHistory(text: string): History | undefined {
  const match = /^(\d{1,15}); cp=(\d{1,15})(?:; takeovers=([\d.,a-f]+))?$/.exec(text);
  if (match === null) return undefined;
  const takeovers = (match[3] ?? "").split(",").filter((part) => part !== "").map((part) => {
    const [cp, mark] = part.split(".");
    return { cp: Number(cp), mark };
  });
  return { epoch: Number(match[1]), cp: Number(match[2]), takeovers };
}

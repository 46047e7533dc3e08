/**
 * `volcast seal`: signs what the pointers of a volume name.
 *
 * @module
 */

import { z } from "zod";
import { publicText, sealPointers } from "../../replication/mod.ts";
import { openVolumeFile } from "../../volume/mod.ts";
import { defineCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { requirePath } from "../local_volume.ts";
import { readKey } from "../trust.ts";
import { DURATION_MS } from "../units.ts";

/** How long a seal counts, ms. */
export const SEAL_LIFETIME_MS: number = 7 * 24 * 3_600_000;

/** See the module. */
export const sealCommand = defineCommand({
  name: ["seal"],
  summary: "sign what the pointers of a volume name",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `A seal says under a signature which snapshot a pointer names, what all its blocks sum up to, and until
when that counts. Sites that serve with --trust take nothing without one. A server makes and renews seals
by itself: volcast serve --sign KEY. Pointers whose seal counts for more than half its time keep it.`,
  examples: [
    "volcast seal site.vol --sign site.key",
    "volcast seal site.vol --sign site.key --for 30d",
  ],
  options: {
    sign: { value: "KEY", help: "file with the private key, see volcast keygen" },
    for: { value: "TIME", help: "how long the seals count; 7d by default" },
    renew: { help: "seal also what has a seal that counts for long yet" },
    json: { help: "say what was sealed as JSON" },
  },
  schema: z.object({
    sign: z.string().min(1),
    for: DURATION_MS.default(SEAL_LIFETIME_MS),
    renew: z.boolean().optional(),
    json: z.boolean().optional(),
  }),
  async run([path], options, terminal): Promise<number> {
    requirePath(path, {
      action: "seal",
      reason: "a server seals its volume itself",
      hint: "Start it with --sign KEY",
    });
    const key = readKey(options.sign);
    const volume = openVolumeFile(path);
    try {
      const { for: lifetimeMs, renew = false } = options;
      const sealed = await sealPointers(volume, { key, lifetimeMs, renew });
      if (options.json) {
        terminal.printJson({
          key: publicText(key.publicKey).trim(),
          sealed: sealed.map(({ pointer, snapshot, sequence, expiresAt }) => ({
            pointer,
            snapshot: snapshot.id,
            sequence,
            expiresAt: isoOf(expiresAt),
          })),
        });
      } else if (sealed.length === 0) terminal.print("Nothing to seal: every pointer has a seal");
      for (const { pointer, snapshot, expiresAt } of options.json ? [] : sealed) {
        terminal.print(
          `Sealed '${snapshot.name}' (${snapshot.id}) for '${pointer}' until ${isoOf(expiresAt)}`,
        );
      }
      return sealed.length === 0 ? EXIT_CODES.nothing : EXIT_CODES.done;
    } finally {
      await volume.close();
    }
  },
});

function isoOf(ns: bigint): string {
  return new Date(Number(ns / 1_000_000n)).toISOString();
}

/**
 * `volcast verify`: whether a volume or a saved image is what its origin sealed.
 *
 * @module
 */

import { z } from "zod";
import { type PlaneSum, VolcastError } from "../../core/mod.ts";
import { equalBytes, idOf, type Seal } from "../../format/mod.ts";
import { sumOf, sumOfStream } from "../../image/mod.ts";
import { sealFor, type Trust } from "../../replication/mod.ts";
import { MASTER, type Volume } from "../../volume/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import type { WithCredentials } from "../credentials.ts";
import { EXIT_CODES } from "../exit.ts";
import { isImage, openImage } from "../image_source.ts";
import { interruptible } from "../interrupt.ts";
import { openVolume } from "../open_volume.ts";
import { REF } from "../schemas.ts";
import { readSeal, readTrust } from "../trust.ts";

/** See the module. */
export const verifyCommand = defineRemoteCommand({
  name: ["verify"],
  summary: "check that a volume or a saved image is what its origin sealed",
  usage: "VOLUME | IMAGE...",
  positionals: [1, Infinity],
  details:
    `Every block is read and hashed; nothing that is noted of earlier is believed. A volume has its seals
with it; for an image name one: a file, or a server's URL with /seals/POINTER. An increment needs a volume
that has its base: --on. Exit code 4 says that it is not what was sealed, or that the seal is none.`,
  examples: [
    "volcast verify paris.vol --trust site.key.pub",
    "volcast verify june5.img --trust site.key.pub --seal http://origin:8080/seals/master --on copy.vol",
  ],
  options: {
    trust: { value: "FILE", help: "public keys, see volcast keygen" },
    seal: { value: "FILE|URL", help: "the seal; a volume's own by default" },
    "sealed-as": { value: "NAME", help: "pointer that the seal must be for; master by default" },
    on: { value: "VOLUME", help: "for an increment: a volume that has its base" },
    json: { help: "say what was verified as JSON" },
  },
  schema: z.object({
    trust: z.string().min(1),
    seal: z.string().min(1).optional(),
    "sealed-as": REF.optional(),
    on: z.string().min(1).optional(),
    json: z.boolean().optional(),
  }),
  async run(names, options, terminal): Promise<number> {
    const pointer = options["sealed-as"] ?? MASTER;
    const trust = readTrust(options.trust, pointer);
    const given = options.seal === undefined
      ? undefined
      : await readSeal(options.seal, options.credentials);
    const areImages = await isImage(names[0]);
    const seal = await interruptible((signal) =>
      areImages
        ? verifyImage(names, { ...options, trust, given, signal, note: terminal.note })
        : verifyVolume(names, { trust, given, pointer })
    );
    const { snapshot, sequence, expiresAt } = seal;
    const until = new Date(Number(expiresAt / 1_000_000n)).toISOString();
    if (options.json) {
      terminal.printJson({
        snapshot: idOf(snapshot),
        name: snapshot.name,
        sequence,
        expiresAt: until,
      });
    } else {
      terminal.print(
        `${names.join(", ")} is '${snapshot.name}' (${idOf(snapshot)}) as it was sealed: ` +
          `${snapshot.blockCount} blocks, seal ${sequence}, which counts until ${until}`,
      );
    }
    return EXIT_CODES.done;
  },
});

async function verifyVolume(
  [path, ...more]: readonly string[],
  { trust, given, pointer }: { trust: Trust; given: Uint8Array | undefined; pointer: string },
): Promise<Seal> {
  if (more.length > 0) {
    throw new VolcastError("usage", `Cannot verify ${more[0]}: ${path} is a volume, one at a time`);
  }
  const volume: Volume = await openVolume(path);
  try {
    const snapshot = volume.find(pointer) ?? volume.current;
    const { volumeId } = volume;
    const bytes = given ?? sealFor(volume, snapshot.id, pointer);
    const seal = trust.check({ volumeId, top: snapshot.id, seal: bytes, from: path }, volume);
    compare(path, await sumOf(volume, snapshot), seal);
    return seal;
  } finally {
    await volume.close();
  }
}

async function verifyImage(
  names: readonly string[],
  { trust, given, on, signal, note, credentials }: WithCredentials & {
    trust: Trust;
    given: Uint8Array | undefined;
    on?: string | undefined;
    signal: AbortSignal;
    note: (text: string) => void;
  },
): Promise<Seal> {
  const image = await openImage(names, { signal, note, credentials });
  const volume = on === undefined ? undefined : await openVolume(on);
  try {
    const { volumeId, top } = image.header;
    const offered = { volumeId, top: idOf(top), seal: given, from: names.join(", ") };
    const seal = trust.check(offered, undefined);
    const sum = await sumOfStream(
      await image.open(0),
      (header) => trust.checkHeader(seal, header),
      volume,
    );
    compare(names.join(", "), sum, seal);
    return seal;
  } finally {
    await volume?.close();
    await image.close();
  }
}

function compare(what: string, sum: PlaneSum, seal: Seal): void {
  if (equalBytes(sum.digest, seal.digest)) return;
  throw new VolcastError(
    "untrusted",
    `Cannot trust ${what}: its content is not what was sealed as '${seal.snapshot.name}'`,
    "Fetch it again, from another node if there is one",
  );
}

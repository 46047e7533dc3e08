/**
 * Keys and seals as files and URLs.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { z } from "zod";
import { messageOf, VolcastError } from "../core/mod.ts";
import { type Credentials, requestJson } from "../http/mod.ts";
import { readPublicKeys, readSigningKey, type SigningKey, Trust } from "../replication/mod.ts";
import { isUrl } from "./local_volume.ts";

/** Most bytes of a file with a key or a seal. */
const MAX_BYTES = 64 * 1024;

/** Whom to believe, by a file with public keys. @throws {VolcastError} `not-found`, `usage`. */
export function readTrust(path: string, pointer?: string): Trust {
  return new Trust({ keys: readPublicKeys(readText(path), path), pointer });
}

/** The key in a file. @throws {VolcastError} `not-found`, `usage`. */
export function readKey(path: string): SigningKey {
  return readSigningKey(readText(path), path);
}

const SEAL_JSON = z.object({ seal: z.base64() });

/**
 * A seal in a file, as GET /seals gives it or as its bytes, or at a URL.
 * @throws {VolcastError} `not-found`, `io`, `damaged`.
 */
export async function readSeal(name: string, credentials: Credentials): Promise<Uint8Array> {
  if (isUrl(name)) {
    const url = new URL(name);
    const server = {
      name: url.origin,
      token: credentials.tokenFor(name),
      client: credentials.client,
    };
    const answer = await requestJson(server, url, SEAL_JSON, { anybody: true });
    return new Uint8Array(Buffer.from(answer.seal, "base64"));
  }
  const bytes = readFile(name);
  if (bytes[0] !== "{".charCodeAt(0)) return bytes;
  const parsed = SEAL_JSON.safeParse(parseJson(new TextDecoder().decode(bytes)));
  if (parsed.success) return new Uint8Array(Buffer.from(parsed.data.seal, "base64"));
  throw new VolcastError("damaged", `Cannot read the seal in ${name}: it has no field 'seal'`);
}

function readText(path: string): string {
  return new TextDecoder().decode(readFile(path));
}

function readFile(path: string): Uint8Array {
  try {
    const { size } = Deno.statSync(path);
    if (size > MAX_BYTES) {
      throw new VolcastError(
        "usage",
        `Cannot read ${path}: it has ${size} bytes, the limit for a key or a seal is ${MAX_BYTES}`,
      );
    }
    return Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof VolcastError) throw error;
    const missing = error instanceof Deno.errors.NotFound;
    throw new VolcastError(
      missing ? "not-found" : "io",
      `Cannot read ${path}: ${missing ? "there is no such file" : messageOf(error)}`,
    );
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

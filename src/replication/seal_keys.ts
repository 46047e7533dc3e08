/**
 * Keys of seals: Ed25519, the private one as PEM (PKCS #8), the public one as a line of text.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { VolcastError } from "../core/mod.ts";
import { encodeSeal, type Seal, type UnverifiedSeal } from "../format/mod.ts";

/** What the text of a public key begins with. */
const PUBLIC_PREFIX = "volcast-key-1:";
/** DER of a public Ed25519 key, before its 32 bytes. */
const PUBLIC_DER = Buffer.from("302a300506032b6570032100", "hex");

/** A key that signs. */
export interface SigningKey {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** Bytes of the seal. */
  seal(content: Omit<Seal, "publicKey">): Uint8Array<ArrayBuffer>;
}

/** Makes a pair of keys. @returns Both as they stand in files. */
export function generateKeys(): { privateText: string; publicText: string } {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  return {
    privateText: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    publicText: publicText(rawOf(publicKey)),
  };
}

/** A public key as a line of text. */
export function publicText(publicKey: Uint8Array): string {
  return `${PUBLIC_PREFIX}${Buffer.from(publicKey).toString("base64")}\n`;
}

/** Reads a private key. @throws {VolcastError} `usage`; it does not repeat what is in the text. */
export function readSigningKey(text: string, where: string): SigningKey {
  let key: KeyObject;
  try {
    key = createPrivateKey(text);
  } catch {
    throw notAKey(where, "no private key as PEM");
  }
  if (key.asymmetricKeyType !== "ed25519") {
    throw notAKey(where, `a key of the kind ${key.asymmetricKeyType}, not ed25519`);
  }
  const publicKey = rawOf(createPublicKey(key));
  return {
    publicKey,
    seal: (content) =>
      encodeSeal({ ...content, publicKey }, (bytes) => new Uint8Array(sign(null, bytes, key))),
  };
}

/**
 * Reads public keys, one a line; empty lines and such as begin with # do not count.
 * @throws {VolcastError} `usage`, naming the line.
 */
export function readPublicKeys(text: string, where: string): Uint8Array[] {
  const keys: Uint8Array[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    const trimmed = line.trim();
    if (trimmed === "" || trimmed.startsWith("#")) continue;
    const bytes = trimmed.startsWith(PUBLIC_PREFIX)
      ? new Uint8Array(Buffer.from(trimmed.slice(PUBLIC_PREFIX.length), "base64"))
      : new Uint8Array(0);
    if (bytes.length !== 32 || publicText(bytes).trim() !== trimmed) {
      throw notAKey(`${where}, line ${i + 1}`, "no public key as volcast keygen writes it");
    }
    keys.push(bytes);
  }
  if (keys.length === 0) throw notAKey(where, "no public key at all");
  return keys;
}

/** Whether the signature of a seal is that of the key it names. */
export function isSigned({ publicKey, signature, signed }: UnverifiedSeal): boolean {
  try {
    const key = createPublicKey({
      key: Buffer.concat([PUBLIC_DER, publicKey]),
      format: "der",
      type: "spki",
    });
    return verify(null, signed, key, signature);
  } catch {
    return false;
  }
}

function rawOf(publicKey: KeyObject): Uint8Array {
  const der = publicKey.export({ type: "spki", format: "der" }) as Buffer;
  return new Uint8Array(der.subarray(PUBLIC_DER.length));
}

function notAKey(where: string, what: string): VolcastError {
  return new VolcastError(
    "usage",
    `Cannot use the key in ${where}: there is ${what}`,
    "Make a pair with: volcast keygen FILE",
  );
}

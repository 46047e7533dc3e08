/**
 * The seal of a snapshot: what an origin says of it under its signature. It is handed on beside images, by
 * nodes that need not be trusted, and renewed while the snapshot stays what a pointer names: so it is no
 * part of an image, whose bytes never change (I5).
 *
 * @module
 */

import { damaged, VolcastError } from "../core/mod.ts";
import { equalBytes, type Pointer } from "./block.ts";
import { defineLayout } from "./layout.ts";
import { decodeLabel, encodeName, MAX_NAME_BYTES } from "./names.ts";
import { bytesToHex, hexToBytes } from "./superblock.ts";
import { snapshotId } from "./tables.ts";

const MAGIC = new Uint8Array([0x89, 0x56, 0x43, 0x53, 0x0d, 0x0a, 0x1a, 0x0a]);
const VERSION = 1;

/** Bytes of an Ed25519 signature. */
export const SIGNATURE_BYTES = 64;

/** Table of a seal. */
export const SEAL_LAYOUT = defineLayout("seal", 768, [
  ["magic", "bytes", 8, "89 'VCS' 0d 0a 1a 0a"],
  ["version", "u32", 4, "format version"],
  ["_reserved1", "zero", 4, "reserved"],
  ["volumeId", "bytes", 16, "the volume's"],
  ["sequence", "u64", 8, "grows with each seal of the volume: an older one is no answer"],
  ["sealedAt", "i64", 8, "when it was sealed, ns since 1970"],
  ["expiresAt", "i64", 8, "until when it counts, ns since 1970"],
  ["cp", "u64", 8, "snapshot: consistency point"],
  ["rootVbn", "u32", 4, "snapshot: VBN of the root"],
  ["rootCrc", "u32", 4, "snapshot: checksum of the root"],
  ["time", "i64", 8, "snapshot: when it was taken, ns since 1970"],
  ["blockCount", "u64", 8, "snapshot: blocks under its plane"],
  ["digest", "bytes", 32, "SHA-256 of the sum of all blocks under its plane, see PlaneSum"],
  ["nameLength", "u16", 2, "snapshot: bytes of the name"],
  ["name", "bytes", MAX_NAME_BYTES, "snapshot: name"],
  ["pointerLength", "u16", 2, "bytes of the pointer's name"],
  ["pointer", "bytes", MAX_NAME_BYTES, "pointer that named the snapshot when it was sealed"],
  ["_reserved2", "zero", 38, "reserved"],
  ["publicKey", "bytes", 32, "Ed25519 key that signed"],
  ["signature", "bytes", SIGNATURE_BYTES, "Ed25519 signature of all bytes before it"],
]);

/** What a seal says. */
export interface Seal {
  readonly volumeId: string;
  readonly sequence: number;
  readonly sealedAt: bigint;
  readonly expiresAt: bigint;
  readonly snapshot: {
    readonly name: string;
    readonly cp: number;
    readonly root: Pointer;
    readonly time: bigint;
    readonly blockCount: number;
  };
  readonly pointer: string;
  /** 32 bytes. */
  readonly digest: Uint8Array;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
}

/** A seal as it stands in its bytes; nobody has looked at the signature. */
export interface UnverifiedSeal extends Seal {
  readonly signature: Uint8Array;
  /** What was signed. */
  readonly signed: Uint8Array;
}

/** Encodes a seal; `sign` gives the signature of what comes before it. */
export function encodeSeal(
  seal: Seal,
  sign: (bytes: Uint8Array) => Uint8Array,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SEAL_LAYOUT.size);
  const { snapshot } = seal;
  const [name, pointer] = [encodeName(snapshot.name), encodeName(seal.pointer)];
  SEAL_LAYOUT.write({
    magic: MAGIC,
    version: VERSION,
    volumeId: hexToBytes(seal.volumeId),
    sequence: seal.sequence,
    sealedAt: seal.sealedAt,
    expiresAt: seal.expiresAt,
    cp: snapshot.cp,
    rootVbn: snapshot.root.vbn,
    rootCrc: snapshot.root.crc,
    time: snapshot.time,
    blockCount: snapshot.blockCount,
    digest: seal.digest,
    nameLength: name.length,
    name,
    pointerLength: pointer.length,
    pointer,
    publicKey: seal.publicKey,
    signature: new Uint8Array(SIGNATURE_BYTES),
  }, bytes);
  bytes.set(sign(signedPart(bytes)), SEAL_LAYOUT.offsetOf("signature"));
  return bytes;
}

/** Decodes a seal. Who signed it, and whether that is right, is not looked at. @throws {VolcastError} `damaged`, `unsupported`. */
export function decodeSeal(bytes: Uint8Array): UnverifiedSeal {
  if (bytes.length !== SEAL_LAYOUT.size || !equalBytes(bytes.subarray(0, 8), MAGIC)) {
    throw damaged(
      `Cannot read the seal: ${bytes.length} bytes that do not begin as a seal does, which has ${SEAL_LAYOUT.size}`,
    );
  }
  const record = SEAL_LAYOUT.read(bytes);
  if (record.version !== VERSION) {
    throw new VolcastError(
      "unsupported",
      `Cannot read the seal: its format version is ${record.version}, this program knows ${VERSION}`,
      "Use a newer volcast release",
    );
  }
  const { nameLength, pointerLength } = record;
  if (nameLength > MAX_NAME_BYTES || pointerLength > MAX_NAME_BYTES) {
    throw damaged(`Cannot read the seal: names of ${nameLength} and ${pointerLength} bytes`);
  }
  return {
    volumeId: bytesToHex(record.volumeId),
    sequence: record.sequence,
    sealedAt: record.sealedAt,
    expiresAt: record.expiresAt,
    snapshot: {
      name: decodeLabel(record.name.subarray(0, nameLength), "the seal"),
      cp: record.cp,
      root: { vbn: record.rootVbn, crc: record.rootCrc },
      time: record.time,
      blockCount: record.blockCount,
    },
    pointer: decodeLabel(record.pointer.subarray(0, pointerLength), "the seal"),
    digest: record.digest,
    publicKey: record.publicKey,
    signature: record.signature,
    signed: signedPart(bytes),
  };
}

/** Id of the snapshot that a seal is of. */
export function sealedId({ snapshot }: Seal): string {
  return snapshotId(snapshot);
}

function signedPart(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(0, SEAL_LAYOUT.offsetOf("signature"));
}

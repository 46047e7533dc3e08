/**
 * The image stream: one grammar for disk, wire and file.
 *
 *     stream := header terms index frames end
 *     terms  := term*
 *     index  := run* deallocatedRun* indexEnd
 *     frames := (frameHeader block+)*
 *
 * Invariants:
 * 1. Runs and frames are in ascending order of VBN; a run never crosses a page of a plane (32768
 *    blocks), a frame never crosses a multiple of 256 blocks. So every part can be produced alone,
 *    and its place in the stream is known from the planes.
 * 2. No field depends on a clock, a host or a node (I5).
 * 3. A stream without a valid end is incomplete, whatever the transport said.
 * 4. An image `top` or `top - base` has no terms; those of other expressions name the further tops that
 *    it restores and the further bases it can stand on, or must. The header has their checksum, and
 *    the digest at the end has the header.
 *
 * @module
 */

import { damaged, VolcastError } from "../core/mod.ts";
import { BLOCK_SIZE, checksum, equalBytes, type Pointer } from "./block.ts";
import { defineLayout } from "./layout.ts";
import { decodeName, encodeName, MAX_NAME_BYTES } from "./names.ts";
import { MAX_TERMS, TERM_LAYOUT } from "./stream_terms.ts";
import { snapshotId } from "./tables.ts";
import { bytesToHex, hexToBytes } from "./superblock.ts";

/** Version of the grammar. */
export const STREAM_FORMAT_VERSION = 1;
/** Most blocks in a frame; also the alignment it does not cross. */
export const FRAME_BLOCKS = 256;

const MAGIC = new Uint8Array([0x89, 0x56, 0x43, 0x49, 0x0d, 0x0a, 0x1a, 0x0a]);
const END_MAGIC = new Uint8Array([0x89, 0x56, 0x43, 0x45, 0x0d, 0x0a, 0x1a, 0x0a]);

/** Whether bytes begin as an image stream does. */
export function isImageStream(bytes: Uint8Array): boolean {
  return equalBytes(bytes.subarray(0, MAGIC.length), MAGIC);
}

/** Table of a stream's header. */
export const STREAM_HEADER_LAYOUT = defineLayout("stream header", 1024, [
  ["magic", "bytes", 8, "89 'VCI' 0d 0a 1a 0a"],
  ["version", "u32", 4, "version of the grammar"],
  ["flags", "u32", 4, "bit 0: the base is a shadow, bit 1: a fragment"],
  ["volumeId", "bytes", 16, "the volume's"],
  ["blockSize", "u32", 4, "4096"],
  ["order", "u32", 4, "0: by VBN"],
  ["capacity", "u64", 8, "blocks of the volume"],
  ["dataStart", "u64", 8, "first VBN under planes"],
  ["topCp", "u64", 8, "top: consistency point"],
  ["topVbn", "u32", 4, "top: VBN of the root"],
  ["topCrc", "u32", 4, "top: checksum of the root"],
  ["topTime", "i64", 8, "top: when it was taken, ns since 1970"],
  ["topNameLength", "u16", 2, "top: bytes of the name"],
  ["topName", "bytes", MAX_NAME_BYTES, "top: name"],
  ["baseCp", "u64", 8, "base: consistency point, 0: none, a full image"],
  ["baseVbn", "u32", 4, "base: VBN of the root"],
  ["baseCrc", "u32", 4, "base: checksum of the root"],
  ["baseTime", "i64", 8, "base: when it was taken, ns since 1970"],
  ["baseNameLength", "u16", 2, "base: bytes of the name"],
  ["baseName", "bytes", MAX_NAME_BYTES, "base: name"],
  ["blockCount", "u64", 8, "blocks in the frames"],
  ["runCount", "u64", 8, "runs in the index"],
  ["deallocatedCount", "u64", 8, "deallocated runs in the index"],
  ["frameCount", "u64", 8, "frames"],
  ["byteCount", "u64", 8, "bytes of the whole stream"],
  ["termCount", "u32", 4, "terms"],
  ["termsCrc", "u32", 4, "checksum of all terms, 0 without terms"],
  ["stateCp", "u64", 8, "shadow base: CP of the root whose shadow was read, 0: regular base"],
  ["stateCrc", "u32", 4, "shadow base: checksum of that root"],
  ["_reserved", "zero", 342, "reserved"],
  ["crc", "u32", 4, "checksum of all bytes before it"],
]);

/** Table of a run in the index. */
export const RUN_LAYOUT = defineLayout("run", 8, [
  ["start", "u32", 4, "first VBN"],
  ["count", "u32", 4, "blocks"],
]);

/** Table of what closes the index. */
export const INDEX_END_LAYOUT = defineLayout("index end", 8, [
  ["magic", "u32", 4, "'IEND'"],
  ["crc", "u32", 4, "checksum of all runs"],
]);

/** Table of a frame's header; its blocks follow. */
export const FRAME_LAYOUT = defineLayout("frame header", 16, [
  ["magic", "u32", 4, "'FRAM'"],
  ["vbn", "u32", 4, "VBN of the first block"],
  ["count", "u32", 4, "blocks, 1 to 256"],
  ["crc", "u32", 4, "checksum of VBN, count and blocks"],
]);

/** Table of the end record. */
export const END_LAYOUT = defineLayout("end record", 64, [
  ["magic", "bytes", 8, "89 'VCE' 0d 0a 1a 0a"],
  ["frameCount", "u64", 8, "frames sent"],
  ["digest", "bytes", 32, "SHA-256 of header, index end and the checksums of all frames"],
  ["flags", "u32", 4, "0; a signature would be announced here"],
  ["_reserved", "zero", 8, "reserved"],
  ["crc", "u32", 4, "checksum of all bytes before it"],
]);

const INDEX_END_MAGIC = 0x444e4549;
const FRAME_MAGIC = 0x4d415246;

/** One end of an image: a snapshot as a stream names it. */
export interface StreamSnapshot {
  readonly name: string;
  readonly cp: number;
  readonly root: Pointer;
  readonly time: bigint;
}

/** A decoded header. */
export interface StreamHeader {
  readonly volumeId: string;
  /** Blocks of the volume. */
  readonly capacity: number;
  readonly dataStart: number;
  readonly top: StreamSnapshot;
  /** Absent in a full image. */
  readonly base?: StreamSnapshot;
  readonly blockCount: number;
  readonly runCount: number;
  readonly deallocatedCount: number;
  readonly frameCount: number;
  /** Bytes of the whole stream. */
  readonly byteCount: number;
  /** The table of terms behind the header, absent where there is none. */
  readonly terms?: { readonly count: number; readonly crc: number };
  /** Blocks that restore no snapshot. */
  readonly fragment?: true;
  /**
   * The base is a shadow, whose plane is not the same for ever: the root from which it was read. VBNs
   * that come in may lie under live ones of the base.
   */
  readonly shadowState?: { readonly cp: number; readonly crc: number };
}

const FLAG_SHADOW = 1;
const FLAG_FRAGMENT = 2;

/** Bytes of a stream with these counts: what `Content-Length` says before anything is read. */
export function streamLength(
  counts: { blocks: number; runs: number; deallocated: number; frames: number; terms?: number },
): number {
  return STREAM_HEADER_LAYOUT.size + (counts.terms ?? 0) * TERM_LAYOUT.size +
    (counts.runs + counts.deallocated) * RUN_LAYOUT.size +
    INDEX_END_LAYOUT.size + counts.frames * FRAME_LAYOUT.size + counts.blocks * BLOCK_SIZE +
    END_LAYOUT.size;
}

/** Encodes a header. */
export function encodeStreamHeader(header: StreamHeader): Uint8Array {
  const bytes = new Uint8Array(STREAM_HEADER_LAYOUT.size);
  const topName = encodeName(header.top.name);
  const baseName = encodeName(header.base?.name ?? "");
  STREAM_HEADER_LAYOUT.write({
    magic: MAGIC,
    version: STREAM_FORMAT_VERSION,
    flags: (header.shadowState === undefined ? 0 : FLAG_SHADOW) |
      (header.fragment === true ? FLAG_FRAGMENT : 0),
    volumeId: hexToBytes(header.volumeId),
    blockSize: BLOCK_SIZE,
    order: 0,
    capacity: header.capacity,
    dataStart: header.dataStart,
    topCp: header.top.cp,
    topVbn: header.top.root.vbn,
    topCrc: header.top.root.crc,
    topTime: header.top.time,
    topNameLength: topName.length,
    topName,
    baseCp: header.base?.cp ?? 0,
    baseVbn: header.base?.root.vbn ?? 0,
    baseCrc: header.base?.root.crc ?? 0,
    baseTime: header.base?.time ?? 0n,
    baseNameLength: baseName.length,
    baseName,
    blockCount: header.blockCount,
    runCount: header.runCount,
    deallocatedCount: header.deallocatedCount,
    frameCount: header.frameCount,
    byteCount: header.byteCount,
    termCount: header.terms?.count ?? 0,
    termsCrc: header.terms?.crc ?? 0,
    stateCp: header.shadowState?.cp ?? 0,
    stateCrc: header.shadowState?.crc ?? 0,
    crc: 0,
  }, bytes);
  seal(bytes);
  return bytes;
}

/** Decodes a header. @throws {VolcastError} `damaged` or `unsupported`, saying which field and value. */
export function decodeStreamHeader(bytes: Uint8Array): StreamHeader {
  if (!equalBytes(bytes.subarray(0, 8), MAGIC)) {
    throw damaged(
      "Cannot read the image: it does not begin as an image stream does",
      "Check that the file is the whole output of 'volcast image' or of GET /replicate",
    );
  }
  checkSeal("the image's header", bytes);
  const record = STREAM_HEADER_LAYOUT.read(bytes);
  const { flags } = record;
  const known = (flags & ~(FLAG_SHADOW | FLAG_FRAGMENT)) === 0;
  if (record.version !== STREAM_FORMAT_VERSION || !known || record.order !== 0) {
    throw new VolcastError(
      "unsupported",
      `Cannot read the image: format version ${record.version}, flags ${flags} and order ${record.order} ` +
        `are not all known here (version ${STREAM_FORMAT_VERSION})`,
      "Use a newer volcast release",
    );
  }
  const header: StreamHeader = {
    volumeId: bytesToHex(record.volumeId),
    capacity: record.capacity,
    dataStart: record.dataStart,
    top: {
      name: decodeName(record.topName.subarray(0, record.topNameLength), "the image's header"),
      cp: record.topCp,
      root: { vbn: record.topVbn, crc: record.topCrc },
      time: record.topTime,
    },
    blockCount: record.blockCount,
    runCount: record.runCount,
    deallocatedCount: record.deallocatedCount,
    frameCount: record.frameCount,
    byteCount: record.byteCount,
    ...(record.baseCp === 0 ? {} : {
      base: {
        name: decodeName(record.baseName.subarray(0, record.baseNameLength), "the image's header"),
        cp: record.baseCp,
        root: { vbn: record.baseVbn, crc: record.baseCrc },
        time: record.baseTime,
      },
    }),
    ...(record.termCount === 0 ? {} : { terms: { count: record.termCount, crc: record.termsCrc } }),
    ...((flags & FLAG_FRAGMENT) === 0 ? {} : { fragment: true }),
    ...((flags & FLAG_SHADOW) === 0
      ? {}
      : { shadowState: { cp: record.stateCp, crc: record.stateCrc } }),
  };
  checkCounts(header);
  checkFlags(record, header);
  return header;
}

/** What a header says of its base must be of one piece, or two readers would read two things. */
function checkFlags(
  record: { termsCrc: number; stateCp: number; stateCrc: number },
  header: StreamHeader,
): void {
  const { terms, fragment, shadowState, base } = header;
  const isWrong = (terms === undefined && record.termsCrc !== 0) ||
    (shadowState === undefined
      ? record.stateCp !== 0 || record.stateCrc !== 0
      : shadowState.cp === 0 || base === undefined) ||
    (fragment === true && base !== undefined);
  if (!isWrong) return;
  throw damaged(
    "Cannot read the image: the flags, the terms and the base in its header do not fit each other",
  );
}

function checkCounts(header: StreamHeader): void {
  // Bounds first: nothing may be allocated from a number that a stranger sent.
  const length = streamLength({
    blocks: header.blockCount,
    runs: header.runCount,
    deallocated: header.deallocatedCount,
    frames: header.frameCount,
    terms: header.terms?.count ?? 0,
  });
  if (
    (header.terms?.count ?? 0) > MAX_TERMS ||
    header.capacity > 2 ** 32 || header.dataStart >= header.capacity ||
    header.blockCount > header.capacity || header.runCount > header.blockCount ||
    header.frameCount > header.blockCount || header.deallocatedCount > header.capacity ||
    header.byteCount !== length
  ) {
    throw damaged(
      `Cannot read the image: its counts do not fit each other (${header.blockCount} blocks, ` +
        `${header.runCount} runs, ${header.frameCount} frames, ${
          header.terms?.count ?? 0
        } terms, ` +
        `${header.byteCount} bytes in a volume of ${header.capacity} blocks)`,
    );
  }
}

/** Encodes the end of the index. */
export function encodeIndexEnd(crc: number): Uint8Array {
  const bytes = new Uint8Array(INDEX_END_LAYOUT.size);
  INDEX_END_LAYOUT.write({ magic: INDEX_END_MAGIC, crc }, bytes);
  return bytes;
}

/** Checks the end of the index. @throws {VolcastError} `damaged` when the runs before it were not those the sender had. */
export function checkIndexEnd(bytes: Uint8Array, crc: number): void {
  const record = INDEX_END_LAYOUT.read(bytes);
  if (record.magic !== INDEX_END_MAGIC || record.crc !== crc) {
    throw damaged("Cannot read the image: the checksum of its index does not match");
  }
}

/** Writes the header of a frame whose blocks stand behind it in `frame`; returns its checksum. */
export function sealFrame(frame: Uint8Array, vbn: number, count: number): number {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  view.setUint32(0, FRAME_MAGIC, true);
  view.setUint32(4, vbn, true);
  view.setUint32(8, count, true);
  const crc = frameChecksum(frame, count);
  view.setUint32(12, crc, true);
  return crc;
}

/** Checks the header of a frame. @throws {VolcastError} `damaged` unless the frame header is the one expected here. */
export function checkFrameHeader(header: Uint8Array, vbn: number, count: number): void {
  const record = FRAME_LAYOUT.read(header);
  if (record.magic !== FRAME_MAGIC || record.vbn !== vbn || record.count !== count) {
    throw damaged(
      `Cannot read the image: a frame says VBN ${record.vbn} and ${record.count} blocks where the ` +
        `index has VBN ${vbn} and ${count}`,
    );
  }
}

/** Checks a whole frame and returns its checksum. @throws {VolcastError} `damaged`. */
export function checkFrame(frame: Uint8Array, vbn: number, count: number): number {
  checkFrameHeader(frame, vbn, count);
  const crc = frameChecksum(frame, count);
  const stored = new DataView(frame.buffer, frame.byteOffset, frame.byteLength).getUint32(12, true);
  if (stored !== crc) {
    throw damaged(
      `Cannot read the image: the checksum of the frame at VBN ${vbn} is ${stored}, its blocks have ${crc}`,
      "Fetch the image again",
    );
  }
  return crc;
}

function frameChecksum(frame: Uint8Array, count: number): number {
  // VBN and count are folded in, so that a frame cannot be taken for another one.
  const data = checksum(frame.subarray(FRAME_LAYOUT.size, FRAME_LAYOUT.size + count * BLOCK_SIZE));
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const head = new Uint8Array(12);
  const headView = new DataView(head.buffer);
  headView.setUint32(0, view.getUint32(4, true), true);
  headView.setUint32(4, count, true);
  headView.setUint32(8, data, true);
  return checksum(head);
}

/** Encodes the end record. */
export function encodeEnd(frameCount: number, digest: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(END_LAYOUT.size);
  END_LAYOUT.write({ magic: END_MAGIC, frameCount, digest, flags: 0, crc: 0 }, bytes);
  seal(bytes);
  return bytes;
}

/** Checks the end record. @throws {VolcastError} `damaged` when what arrived is not all that was sent. */
export function checkEnd(bytes: Uint8Array, frameCount: number, digest: Uint8Array): void {
  if (!equalBytes(bytes.subarray(0, 8), END_MAGIC)) {
    throw damaged("Cannot read the image: its end record is missing");
  }
  checkSeal("the image's end record", bytes);
  const record = END_LAYOUT.read(bytes);
  if (
    record.flags !== 0 || record.frameCount !== frameCount || !equalBytes(record.digest, digest)
  ) {
    throw damaged(
      `Cannot read the image: its end record names ${record.frameCount} frames and a digest, ` +
        `what arrived are ${frameCount} frames and another one`,
    );
  }
}

/** Id of a stream's snapshot. */
export function idOf(snapshot: StreamSnapshot): string {
  return snapshotId(snapshot);
}

/** Puts the checksum of all bytes before it into the last four. */
export function seal(bytes: Uint8Array): void {
  const at = bytes.length - 4;
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(at, checksum(bytes.subarray(0, at)), true);
}

/** Checks what {@linkcode seal} wrote. @throws {VolcastError} `damaged`, naming `what`. */
export function checkSeal(what: string, bytes: Uint8Array): void {
  const at = bytes.length - 4;
  const stored = new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
  if (stored !== checksum(bytes.subarray(0, at))) {
    throw damaged(`Cannot read ${what}: its checksum does not match`, "Fetch the image again");
  }
}

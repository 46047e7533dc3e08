/**
 * Reading the front of an image stream: header and index, checked as far as they can be alone.
 *
 * @module
 */

import { BitPlane, damaged, PAGE_BITS, pageCountOf, type Plane, type Run } from "../core/mod.ts";
import {
  checkIndexEnd,
  checkStoredLabel,
  checksum,
  decodeStreamHeader,
  decodeTerms,
  INDEX_END_LAYOUT,
  RUN_LAYOUT,
  STREAM_HEADER_LAYOUT,
  type StreamHeader,
  type StreamTerm,
  TERM_LAYOUT,
} from "../format/mod.ts";
import type { ByteReader } from "./byte_reader.ts";
import { checksumOfParts } from "./image.ts";

/** What a stream says of itself before its index. */
export interface StreamFront {
  readonly header: StreamHeader;
  readonly terms: readonly StreamTerm[];
}

/** The front and the index of a stream. */
export interface StreamIndex extends StreamFront {
  readonly plane: Plane;
  /** Blocks that the base has and the top has not; not to be trusted. */
  readonly deallocated: Plane;
  readonly indexCrc: number;
}

/**
 * Reads header, terms and index.
 *
 * @param accept Called with header and terms before anything else is read; throws where they do not fit.
 * @throws {VolcastError} `damaged`, `unsupported`, and what `accept` throws; {@linkcode CutError}.
 */
export async function readIndex(
  reader: ByteReader,
  accept: (front: StreamFront) => void,
): Promise<StreamIndex> {
  const header = decodeStreamHeader(await reader.take(STREAM_HEADER_LAYOUT.size));
  const termBytes = await reader.take((header.terms?.count ?? 0) * TERM_LAYOUT.size);
  const terms = decodeTerms(termBytes, header);
  for (const { name } of [header.top, header.base ?? header.top, ...terms]) {
    checkStoredLabel(name, "the image's header");
  }
  accept({ header, terms });
  const crcs: number[] = [];
  const plane = new BitPlane(pageCountOf(header.capacity));
  for await (const part of readRuns(reader, header, header.runCount, crcs)) {
    for (const run of part) plane.setRun(run.start, run.count);
  }
  const deallocated = new BitPlane(pageCountOf(header.capacity));
  for await (const part of readRuns(reader, header, header.deallocatedCount, crcs)) {
    for (const run of part) deallocated.setRun(run.start, run.count);
  }
  const indexCrc = checksumOfParts(crcs);
  checkIndexEnd(await reader.take(INDEX_END_LAYOUT.size), indexCrc);
  return { header, terms, plane, deallocated, indexCrc };
}

/** The runs of one part of the index, page by page; each checked and its checksum noted. */
async function* readRuns(
  reader: ByteReader,
  header: StreamHeader,
  count: number,
  crcs: number[],
): AsyncGenerator<Run[]> {
  const bytes: Uint8Array[] = [];
  let runs: Run[] = [];
  let page = -1;
  let end = -1;
  const close = () => {
    crcs.push(checksum(concat(bytes)));
    bytes.length = 0;
    const part = runs;
    runs = [];
    return part;
  };
  for (let i = 0; i < count;) {
    const batch = Math.min(count - i, 8192);
    const chunk = await reader.take(batch * RUN_LAYOUT.size);
    for (let j = 0; j < batch; j++, i++) {
      const at = j * RUN_LAYOUT.size;
      const run = RUN_LAYOUT.read(chunk, at);
      const last = run.start + run.count - 1;
      const runPage = Math.floor(run.start / PAGE_BITS);
      if (
        run.count === 0 || run.start < header.dataStart || last >= header.capacity ||
        run.start < end || runPage !== Math.floor(last / PAGE_BITS)
      ) {
        throw damaged(
          `Cannot read the image: its index has a run of ${run.count} blocks at VBN ${run.start}, which cannot be`,
        );
      }
      if (runPage !== page && runs.length > 0) yield close();
      page = runPage;
      end = last + 1;
      runs.push(run);
      bytes.push(chunk.subarray(at, at + RUN_LAYOUT.size));
    }
  }
  if (runs.length > 0) yield close();
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

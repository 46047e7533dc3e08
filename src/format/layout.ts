/**
 * On-disk records as tables: one `[field, type, size, meaning]` list is the codec, the check and the
 * documentation at once, so the three cannot drift apart. All integers are little-endian.
 *
 * Invariants:
 * 1. Fields follow each other without padding; their sizes add up to the record's size.
 * 2. Reserved space (`zero`) is written as zeros and checked to be zero when read.
 * 3. A `u64` above 2^53 - 1 is refused when read: no value is rounded in silence.
 *
 * @module
 */

import { assert, damaged } from "../core/mod.ts";
import { copyOf } from "./small_bytes.ts";

/** Types a field can have. `i64` is a bigint (nanoseconds), all other integers are numbers. */
export type FieldType = "u8" | "u16" | "u32" | "u64" | "i64" | "bytes" | "zero";

/** One row: name, type, size in bytes, meaning. */
export type Field = readonly [name: string, type: FieldType, size: number, meaning: string];

type ValueOf<T extends FieldType> = T extends "i64" ? bigint
  : T extends "bytes" ? Uint8Array
  : number;

/** The record that a table of fields describes. */
export type RecordOf<F extends readonly Field[]> = {
  -readonly [K in F[number] as K[1] extends "zero" ? never : K[0]]: ValueOf<K[1]>;
};

/** A record's table with its codec. */
export interface Layout<F extends readonly Field[]> {
  /** What the record is called in messages. */
  readonly name: string;
  /** Bytes of the record. */
  readonly size: number;
  /** The table. */
  readonly fields: F;
  /** Offset of a field from the record's start. */
  offsetOf(field: F[number][0]): number;
  /**
   * Reads a record.
   * @throws {VolcastError} `damaged` when reserved bytes are set or a number is too large.
   */
  read(bytes: Uint8Array, at?: number): RecordOf<F>;
  /** Writes a record over `bytes`, reserved space as zeros. */
  write(record: RecordOf<F>, bytes: Uint8Array, at?: number): void;
}

const FIXED_SIZES: Partial<Record<FieldType, number>> = { u8: 1, u16: 2, u32: 4, u64: 8, i64: 8 };

/** Makes a layout and checks its sums when the module is loaded. */
export function defineLayout<const F extends readonly Field[]>(
  name: string,
  size: number,
  fields: F,
): Layout<F> {
  const offsets = new Map<string, number>();
  let end = 0;
  for (const [field, type, fieldSize] of fields) {
    assert(!offsets.has(field), `${name}.${field} appears twice`);
    const fixed = FIXED_SIZES[type];
    assert(fixed === undefined || fixed === fieldSize, `${name}.${field}: ${type} of ${fieldSize}`);
    offsets.set(field, end);
    end += fieldSize;
  }
  assert(end === size, `${name} has ${end} bytes, wants ${size}`);

  return {
    name,
    size,
    fields,
    offsetOf(field: string): number {
      const offset = offsets.get(field);
      assert(offset !== undefined, `${name} has no field ${field}`);
      return offset;
    },
    ...compile<RecordOf<F>>(name, fields),
  };
}

let lastBytes: Uint8Array | undefined;
let lastView: DataView | undefined;

/** The bytes of a record's block. Records are read and written there one by one: the view is made once. */
function viewOf(bytes: Uint8Array): DataView {
  if (lastBytes === bytes) return lastView!;
  lastBytes = bytes;
  return lastView = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Makes straight code of a table: one statement a field. Inodes by the hundred thousand are read and
 * written so, and a loop that looks up type and name of each field anew takes five times as long.
 */
function compile<R>(
  name: string,
  fields: readonly Field[],
): {
  read(bytes: Uint8Array, at?: number): R;
  write(record: R, bytes: Uint8Array, at?: number): void;
} {
  const reads: string[] = [];
  const values: string[] = [];
  const writes: string[] = [];
  let end = 0;
  for (const [field, type, size] of fields) {
    assert(/^[a-z_]\w*$/i.test(field), `${name}: ${field} is no name of a field`);
    const offset = `at + ${end}`;
    if (type === "zero") reads.push(zeroCheckOf(field, offset, size));
    else values.push(`${field}: ${readOf(field, type, offset, size)}`);
    writes.push(writeOf(field, type, offset, size));
    end += size;
  }
  const make = new Function(
    "name, viewOf, copyOf, checkZeros, readU64, writeU64, writeBytes",
    `"use strict";
    return {
      read(bytes, at = 0) {
        if (at + ${end} > bytes.length) throw new RangeError(name + " is cut off");
        const view = viewOf(bytes);
        ${reads.join("\n")}
        return { ${values.join(",\n")} };
      },
      write(record, bytes, at = 0) {
        const view = viewOf(bytes);
        ${writes.join("\n")}
      },
    };`,
  );
  return make(name, viewOf, copyOf, checkZeros, readU64, writeU64, writeBytes);
}

function readOf(field: string, type: FieldType, offset: string, size: number): string {
  switch (type) {
    case "u8":
      return `view.getUint8(${offset})`;
    case "u16":
      return `view.getUint16(${offset}, true)`;
    case "u32":
      return `view.getUint32(${offset}, true)`;
    case "u64":
      return `readU64(name, "${field}", view, ${offset})`;
    case "i64":
      return `view.getBigInt64(${offset}, true)`;
    default:
      return `copyOf(bytes, ${offset}, ${size})`;
  }
}

/** Which byte is not zero is looked for only where one is not. */
function zeroCheckOf(field: string, offset: string, size: number): string {
  const check = `checkZeros(name, "${field}", bytes, ${offset}, ${size});`;
  if (size % 4 !== 0 || size > 64) return check;
  const words = Array.from({ length: size / 4 }, (_, i) => `view.getUint32(${offset} + ${i * 4})`);
  return `if ((${words.join(" | ")}) !== 0) ${check}`;
}

function writeOf(field: string, type: FieldType, offset: string, size: number): string {
  const value = `record.${field}`;
  switch (type) {
    case "u8":
      return `view.setUint8(${offset}, ${value});`;
    case "u16":
      return `view.setUint16(${offset}, ${value}, true);`;
    case "u32":
      return `view.setUint32(${offset}, ${value}, true);`;
    case "u64":
      return `writeU64("${field}", view, ${offset}, ${value});`;
    case "i64":
      return `view.setBigInt64(${offset}, ${value}, true);`;
    case "bytes":
      return `writeBytes("${field}", bytes, ${offset}, ${size}, ${value});`;
    case "zero":
      return `bytes.fill(0, ${offset}, ${offset} + ${size});`;
  }
}

function readU64(record: string, field: string, view: DataView, offset: number): number {
  const value = view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 2 ** 32;
  if (value > Number.MAX_SAFE_INTEGER) {
    throw damaged(`Cannot read ${record}: ${field} is ${value}, the limit is 2^53 - 1`);
  }
  return value;
}

function writeU64(field: string, view: DataView, offset: number, value: number): void {
  assert(Number.isSafeInteger(value), `${field} is ${value}`);
  view.setUint32(offset, value % 2 ** 32, true);
  view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true);
}

function writeBytes(
  field: string,
  bytes: Uint8Array,
  offset: number,
  size: number,
  source: Uint8Array,
): void {
  assert(source.length <= size, `${field} of ${source.length} bytes, has room for ${size}`);
  if (source.length < size) bytes.fill(0, offset, offset + size);
  bytes.set(source, offset);
}

function checkZeros(
  record: string,
  field: string,
  bytes: Uint8Array,
  offset: number,
  size: number,
): void {
  for (let i = offset; i < offset + size; i++) {
    if (bytes[i] !== 0) {
      throw damaged(
        `Cannot read ${record}: reserved byte ${i} (${field}) is ${bytes[i]}, must be 0`,
        "It was written by a newer version, or it is damaged",
      );
    }
  }
}

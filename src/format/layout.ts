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
    read(bytes: Uint8Array, at = 0): RecordOf<F> {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const record: Record<string, number | bigint | Uint8Array> = {};
      let offset = at;
      for (const [field, type, fieldSize] of fields) {
        if (type === "zero") checkZeros(name, field, bytes, offset, fieldSize);
        else record[field] = readField(name, field, type, view, offset, fieldSize);
        offset += fieldSize;
      }
      return record as RecordOf<F>;
    },
    write(record: RecordOf<F>, bytes: Uint8Array, at = 0): void {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const values = record as Record<string, number | bigint | Uint8Array>;
      let offset = at;
      for (const [field, type, fieldSize] of fields) {
        if (type === "zero") bytes.fill(0, offset, offset + fieldSize);
        else writeField(field, type, view, offset, fieldSize, values[field]);
        offset += fieldSize;
      }
    },
  };
}

function readField(
  record: string,
  field: string,
  type: FieldType,
  view: DataView,
  offset: number,
  size: number,
): number | bigint | Uint8Array {
  switch (type) {
    case "u8":
      return view.getUint8(offset);
    case "u16":
      return view.getUint16(offset, true);
    case "u32":
      return view.getUint32(offset, true);
    case "u64": {
      const value = view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 2 ** 32;
      if (value > Number.MAX_SAFE_INTEGER) {
        throw damaged(`Cannot read ${record}: ${field} is ${value}, the limit is 2^53 - 1`);
      }
      return value;
    }
    case "i64":
      return view.getBigInt64(offset, true);
    default:
      return new Uint8Array(view.buffer, view.byteOffset + offset, size).slice();
  }
}

function writeField(
  field: string,
  type: FieldType,
  view: DataView,
  offset: number,
  size: number,
  value: number | bigint | Uint8Array,
): void {
  switch (type) {
    case "u8":
      return view.setUint8(offset, value as number);
    case "u16":
      return view.setUint16(offset, value as number, true);
    case "u32":
      return view.setUint32(offset, value as number, true);
    case "u64":
      assert(Number.isSafeInteger(value), `${field} is ${value}`);
      view.setUint32(offset, (value as number) % 2 ** 32, true);
      return view.setUint32(offset + 4, Math.floor((value as number) / 2 ** 32), true);
    case "i64":
      return view.setBigInt64(offset, value as bigint, true);
    default: {
      const target = new Uint8Array(view.buffer, view.byteOffset + offset, size);
      const source = value as Uint8Array;
      assert(source.length <= size, `${field} of ${source.length} bytes, has room for ${size}`);
      target.fill(0);
      target.set(source);
    }
  }
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

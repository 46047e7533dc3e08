/**
 * Changes of bytes, as steps of an input.
 *
 * @module
 */

import type { Random } from "../helpers/random.ts";
import type { Field } from "../../src/format/mod.ts";
import type { Input, Step } from "./target.ts";

/** Numbers at which code goes wrong. */
export const NUMBERS: readonly number[] = [
  0,
  1,
  2,
  3,
  5,
  16,
  127,
  128,
  129,
  255,
  256,
  511,
  512,
  4095,
  4096,
  4097,
  32767,
  32768,
  65535,
  65536,
  2 ** 24,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 33 + 1,
  2 ** 40,
  2 ** 44,
  2 ** 44 + 1,
  2 ** 52,
  2 ** 53 - 1,
  2 ** 53,
  2 ** 63,
];

/** Bytes as text. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Text as bytes. */
export function fromHex(text: string): Uint8Array {
  return new Uint8Array((text.match(/../g) ?? []).map((pair) => parseInt(pair, 16)));
}

/** A number at which code goes wrong, or one beside another one. */
export function number(random: Random, near: readonly number[] = []): number {
  const pool = near.length > 0 && random.oneIn(2) ? near : NUMBERS;
  const value = random.pick(pool);
  return random.oneIn(4) ? Math.max(0, value + random.between(-2, 2)) : value;
}

/** A number as an integer of some bytes, its upper bits cut off. */
export function littleEndian(value: number, size: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(Math.floor(value))), true);
  return bytes.subarray(0, size);
}

/** A field of a layout table with another value: where it lies in the record, and the bytes. */
export function fieldChange(
  random: Random,
  layout: { fields: readonly Field[]; offsetOf(name: never): number },
  near: readonly number[] = [],
  wanted?: readonly string[],
): { offset: number; hex: string; field: string } {
  const named = wanted === undefined || random.oneIn(4)
    ? layout.fields
    : layout.fields.filter(([name]) => wanted.includes(name));
  const [field, type, size] = random.pick(named);
  const start = layout.offsetOf(field as never);
  if (type === "bytes" || type === "zero") {
    const at = random.below(size);
    return { offset: start + at, hex: toHex(random.bytes(Math.min(size - at, 1))), field };
  }
  return { offset: start, hex: toHex(littleEndian(number(random, near), size)), field };
}

/** A change of a string of bytes; {@linkcode applySteps} does it. */
export function byteStep(random: Random, length: number): Step {
  const at = random.below(Math.max(1, length));
  switch (random.below(8)) {
    case 0:
    case 1:
      return { op: "flip", at, bit: random.below(8) };
    case 2:
      return { op: "cut", at };
    case 3:
      return { op: "drop", at, count: random.between(1, random.pick([1, 8, 512, 5000])) };
    case 4:
      return { op: "again", at, count: random.between(1, random.pick([1, 8, 512, 5000])) };
    case 5:
      return { op: "splice", at, from: random.below(length), count: random.between(1, 600) };
    case 6:
      return {
        op: "put",
        at,
        hex: toHex(littleEndian(number(random), random.pick([1, 2, 4, 8]))),
      };
    default:
      return { op: "insert", at, hex: toHex(random.bytes(random.between(1, 20))) };
  }
}

/** Does the steps of {@linkcode byteStep}, in order. Others are left alone. */
export function applySteps(bytes: Uint8Array, steps: Input): Uint8Array<ArrayBuffer> {
  let result = Uint8Array.from(bytes);
  for (const step of steps) result = applyStep(result, step);
  return result;
}

function applyStep(bytes: Uint8Array<ArrayBuffer>, step: Step): Uint8Array<ArrayBuffer> {
  const at = Math.min(Number(step.at ?? 0), bytes.length);
  const count = Number(step.count ?? 0);
  switch (step.op) {
    case "flip":
      if (at < bytes.length) bytes[at] ^= 1 << Number(step.bit);
      return bytes;
    case "cut":
      return bytes.slice(0, at);
    case "drop":
      return joined(bytes.subarray(0, at), bytes.subarray(at + count));
    case "again":
      return joined(bytes.subarray(0, at + count), bytes.subarray(at));
    case "splice": {
      const from = Number(step.from);
      bytes.set(bytes.slice(from, Math.min(from + count, from + bytes.length - at)), at);
      return bytes;
    }
    case "put":
      bytes.set(fromHex(String(step.hex)).subarray(0, bytes.length - at), at);
      return bytes;
    case "insert":
      return joined(bytes.subarray(0, at), fromHex(String(step.hex)), bytes.subarray(at));
    default:
      return bytes;
  }
}

/** One behind the other. */
export function joined(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

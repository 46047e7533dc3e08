/**
 * The terms of an image stream: the tops and bases of an expression besides the two that the header has.
 *
 * @module
 */

import { damaged } from "../core/mod.ts";
import { checksum } from "./block.ts";
import { defineLayout } from "./layout.ts";
import { decodeName, encodeName, MAX_NAME_BYTES } from "./names.ts";
import type { StreamHeader, StreamSnapshot } from "./stream.ts";

/** Table of a term: a snapshot that is a top or a base besides those in the header. */
export const TERM_LAYOUT = defineLayout("term", 288, [
  ["role", "u8", 1, "1 top, 2 alternative base, 3 required base, 4 named by a fragment"],
  ["_reserved1", "zero", 1, "reserved"],
  ["nameLength", "u16", 2, "bytes of the name"],
  ["vbn", "u32", 4, "VBN of the root"],
  ["cp", "u64", 8, "consistency point"],
  ["time", "i64", 8, "when it was taken, ns since 1970"],
  ["crc", "u32", 4, "checksum of the root"],
  ["name", "bytes", MAX_NAME_BYTES, "name"],
  ["_reserved2", "zero", 5, "reserved"],
]);

/** Most terms: each snapshot that a volume can have as a top, and as a base. */
export const MAX_TERMS = 8192;

/** What a term is to the image, in the order in which terms stand. */
export const TERM_ROLES = ["top", "alternative", "required", "named"] as const;
/** See {@linkcode TERM_ROLES}. */
export type TermRole = typeof TERM_ROLES[number];

/**
 * A snapshot besides the header's top and base.
 * - `top`: restored by the image too.
 * - `alternative`: a base on which the image can stand as well as on the header's.
 * - `required`: a base that is needed together with the header's.
 * - `named`: what a fragment was made of; nothing follows from it.
 */
export interface StreamTerm extends StreamSnapshot {
  readonly role: TermRole;
}

/** Encodes the table of terms: by role, and by consistency point within a role. */
export function encodeTerms(terms: readonly StreamTerm[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(terms.length * TERM_LAYOUT.size);
  inOrder(terms).forEach(({ role, cp, root, time, name }, index) => {
    const encoded = encodeName(name);
    TERM_LAYOUT.write(
      {
        role: TERM_ROLES.indexOf(role) + 1,
        nameLength: encoded.length,
        vbn: root.vbn,
        cp,
        time,
        crc: root.crc,
        name: encoded,
      },
      bytes,
      index * TERM_LAYOUT.size,
    );
  });
  return bytes;
}

/** Terms in the order in which they stand in a stream. */
function inOrder(terms: readonly StreamTerm[]): StreamTerm[] {
  return [...terms].sort((a, b) =>
    TERM_ROLES.indexOf(a.role) - TERM_ROLES.indexOf(b.role) || a.cp - b.cp
  );
}

/**
 * Decodes the table of terms that a header announces.
 * @throws {VolcastError} `damaged` when it is another one, or says what cannot be.
 */
export function decodeTerms(bytes: Uint8Array, header: StreamHeader): StreamTerm[] {
  const refuse = (why: string): never => {
    throw damaged(`Cannot read the image: ${why}`);
  };
  const count = header.terms?.count ?? 0;
  if (bytes.length !== count * TERM_LAYOUT.size) refuse("its terms are not as many as it says");
  if (header.terms !== undefined && checksum(bytes) !== header.terms.crc) {
    refuse("the checksum of its terms does not match");
  }
  const terms: StreamTerm[] = [];
  for (let at = 0; at < bytes.length; at += TERM_LAYOUT.size) {
    const record = TERM_LAYOUT.read(bytes, at);
    const role = TERM_ROLES[record.role - 1];
    if (role === undefined) refuse(`a term has the role ${record.role}, known are 1 to 4`);
    if (record.cp === 0 || record.nameLength > MAX_NAME_BYTES) {
      refuse(`a term has CP ${record.cp} and a name of ${record.nameLength} bytes`);
    }
    const name = decodeName(record.name.subarray(0, record.nameLength), "the image's terms");
    const root = { vbn: record.vbn, crc: record.crc };
    terms.push({ role, name, cp: record.cp, root, time: record.time });
  }
  checkTerms(header, terms, refuse);
  return terms;
}

function checkTerms(
  header: StreamHeader,
  terms: readonly StreamTerm[],
  refuse: (why: string) => never,
): void {
  const sorted = inOrder(terms);
  const roles = new Set(terms.map(({ role }) => role));
  terms.forEach((term, i) => {
    const before = terms[i - 1];
    const isTwice = before?.role === term.role && before.cp === term.cp;
    if (sorted[i] !== term || isTwice) refuse(`the term '${term.name}' is not in its place`);
    if (term.role === "top" && term.cp >= header.top.cp) {
      refuse(`its top is '${header.top.name}', and the term '${term.name}' is no older top`);
    }
  });
  if (roles.has("named") !== (header.fragment === true) && terms.length > 0) {
    refuse("its terms are those of a fragment and it says it is none, or the reverse");
  }
  if (header.fragment === true && roles.size > 1) refuse("a fragment has a top or a base");
  const hasBases = roles.has("alternative") || roles.has("required");
  if (hasBases && header.base === undefined) refuse("it names further bases and has none");
  if (roles.has("alternative") && roles.has("required")) {
    refuse("its bases are alternatives and required at once");
  }
}

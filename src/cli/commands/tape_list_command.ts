/**
 * `volcast tape list`: what is on media with segments or images, as far as it can be read.
 *
 * @module
 */

import { z } from "zod";
import { messageOf, VolcastError } from "../../core/mod.ts";
import { idOf } from "../../format/mod.ts";
import { describeImage, type Finding, inspectMedium, Pieces } from "../../image/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import type { WithCredentials } from "../credentials.ts";
import { EXIT_CODES } from "../exit.ts";
import { interruptible } from "../interrupt.ts";
import { Media } from "../media.ts";
import { counted, showName, table } from "../text.ts";
import { showExactBytes } from "../units.ts";

/** What was found on a medium. */
interface Row extends Finding {
  readonly name: string;
}

/** An image of which something was found. */
interface Group {
  readonly image: string;
  readonly volume: string;
  readonly top: string;
  readonly base?: string;
  readonly byteCount: number;
  /** Bytes of the stream that were not found, the last one included. */
  readonly missing: readonly { readonly from: number; readonly to: number }[];
  readonly missingSegments: readonly number[];
}

/** See the module. */
export const tapeListCommand = defineRemoteCommand({
  name: ["tape", "list"],
  summary: "say what segments and images hold, and whether they are whole",
  usage: "SEGMENT...",
  positionals: [1, Infinity],
  details:
    `SEGMENT is a file, a URL, a file in a volume, a device or - (standard input); also plain images.
Nothing is written. Of damaged media is told what can still be read; then the exit code is 4.

By default headers and trailers are read; with --check, and from pipes, all of it is, and compared with
the digests in the trailers.`,
  examples: [
    "volcast tape list /backup/june5.*",
    "volcast tape list --check /backup/june5.* --json",
    "ssh host 'cat /dev/nst0' | volcast tape list -",
  ],
  options: {
    check: { help: "read everything and compare it with the digests" },
    json: { help: "as JSON" },
  },
  schema: z.object({ check: z.boolean().optional(), json: z.boolean().optional() }),
  async run(names, options, terminal): Promise<number> {
    const rows = await interruptible((signal) =>
      inspect(names, { ...options, check: options.check ?? false, signal })
    );
    const groups = groupsOf(rows);
    if (options.json) {
      terminal.printJson({ images: groups, pieces: rows.map(jsonOf) });
    } else {
      terminal.print(textOf(rows));
      for (const group of groups) terminal.print(groupText(group));
      for (const { name, at, problem, says } of rows) {
        if (problem === undefined) continue;
        const said = says === undefined ? "" : ` (it says of itself: ${says})`;
        terminal.note(`${showName(name)}, byte ${at}: ${problem}${said}`);
      }
    }
    const isDamaged = rows.some(({ problem }) => problem !== undefined);
    return isDamaged ? EXIT_CODES.damaged : EXIT_CODES.done;
  },
});

async function inspect(
  names: readonly string[],
  options: WithCredentials & { check: boolean; signal: AbortSignal },
): Promise<Row[]> {
  await using media = new Media(options.signal, options);
  const rows: Row[] = [];
  for (const name of names) {
    try {
      const medium = await media.open(name);
      for await (const finding of inspectMedium(medium, options)) rows.push({ ...finding, name });
    } catch (error) {
      // Of several the others are still worth telling.
      if (names.length === 1 || !(error instanceof VolcastError)) throw error;
      const problem = messageOf(error);
      rows.push({ name, at: 0, span: { start: 0, end: 0 }, problem, isChecked: false });
    }
    options.signal.throwIfAborted();
  }
  return rows;
}

/** The images there are parts of, and what of them was not found. */
function groupsOf(rows: readonly Row[]): Group[] {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    if (row.streamBytes === undefined) continue;
    const key = row.streamBytes.toBase64();
    groups.set(key, [...groups.get(key) ?? [], row]);
  }
  return [...groups.values()].map((found): Group => {
    const header = found[0].header!;
    // Nothing is read from them: they are counted.
    const pieces = new Pieces(
      found.map(({ name, header, streamBytes, segment, span }) => ({
        name,
        header: header!,
        streamBytes: streamBytes!,
        ...span,
        ...(segment === undefined ? {} : { segment }),
        bytes: { name, byteCount: 0, stream: () => new ReadableStream() },
        at: 0,
      })),
      () => {},
    );
    return {
      image: describeImage(header),
      volume: header.volumeId,
      top: idOf(header.top),
      ...(header.base === undefined ? {} : { base: idOf(header.base) }),
      byteCount: header.byteCount,
      missing: pieces.missing().map(({ start, end }) => ({ from: start, to: end - 1 })),
      missingSegments: pieces.missingSegments(),
    };
  });
}

function textOf(rows: readonly Row[]): string {
  return table(
    [
      { head: "NAME" },
      { head: "SEGMENT" },
      { head: "IMAGE" },
      { head: "BYTES", align: "right" },
      { head: "BLOCKS", align: "right" },
      { head: "VBNS" },
      { head: "STATE" },
    ],
    rows.map(({ name, segment, header, span, problem, isChecked, says }) => [
      showName(name),
      segment === undefined ? says ?? "-" : `${segment.number} of ${segment.count}`,
      header === undefined ? "-" : describeImage(header),
      span.end === 0 ? "-" : `${span.start}-${span.end - 1}`,
      String(segment?.blockCount ?? header?.blockCount ?? "-"),
      segment?.vbns === undefined ? "-" : `${segment.vbns.first}-${segment.vbns.last}`,
      problem !== undefined ? "damaged" : isChecked ? "checked" : "there",
    ]),
  );
}

function groupText({ image, volume, top, byteCount, missing, missingSegments }: Group): string {
  const bytes = missing.slice(0, 5).map(({ from, to }) => `${from}-${to}`).join(", ");
  const segments = missingSegments.length === 0
    ? ""
    : ` (${counted(missingSegments.length, "segment")}: ${
      missingSegments.slice(0, 20).join(", ")
    })`;
  const state = missing.length === 0
    ? "all of it is here"
    : `not here are bytes ${bytes}${missing.length > 5 ? " and more" : ""}${segments}`;
  return `${image} (${top}) of volume ${volume}, ${showExactBytes(byteCount)}: ${state}`;
}

function jsonOf({ name, at, segment, header, span, problem, says, isChecked }: Row): unknown {
  return {
    name,
    at,
    ...(header === undefined ? {} : { image: describeImage(header), top: idOf(header.top) }),
    ...(segment === undefined ? {} : {
      segment: segment.number,
      segments: segment.count,
      recordBytes: segment.recordBytes,
      blocks: segment.blockCount,
      vbns: segment.vbns,
    }),
    ...(span.end === 0 ? {} : { from: span.start, to: span.end - 1 }),
    ...(problem === undefined ? {} : { problem }),
    ...(says === undefined ? {} : { says }),
    checked: isChecked,
  };
}

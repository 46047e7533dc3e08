/**
 * `volcast stat`: everything that is known of a file of a volume.
 *
 * @module
 */

import { z } from "zod";
import { defineRemoteCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { REF } from "../schemas.ts";
import { type FileDescription, openTarget } from "../target.ts";
import { fields, showMode, showName, showTime } from "../text.ts";
import { showExactBytes } from "../units.ts";

/** CIFS attribute bits that have a name. */
const DOS_BITS = [
  [0x01, "read-only"],
  [0x02, "hidden"],
  [0x04, "system"],
  [0x20, "archive"],
] as const;

/** See the module. */
export const statCommand = defineRemoteCommand({
  name: ["stat"],
  summary: "say what is known of a file",
  usage: "VOLUME PATH",
  positionals: [2, 2],
  details: "A symbolic link at the end of PATH is not followed.",
  examples: [
    "volcast stat site.vol /index.html",
    "volcast stat site.vol /index.html --at june3 --json",
  ],
  options: {
    at: { value: "REF", help: "a snapshot, a pointer, or active" },
    json: { help: "as JSON; times are ns since 1970, attributes base64" },
  },
  schema: z.object({ at: REF.optional(), json: z.boolean().optional() }),
  async run([volume, path], options, terminal): Promise<number> {
    await using target = await openTarget(volume, options);
    const file = await target.stat(path, options.at);
    if (options.json) terminal.printJson(file);
    else terminal.print(textOf(file));
    return EXIT_CODES.done;
  },
});

function textOf(file: FileDescription): string {
  const permissions = (file.mode & 0o7777).toString(8).padStart(4, "0");
  const dos = DOS_BITS.filter(([bit]) => (file.dos & bit) !== 0).map(([, name]) => name).join(", ");
  return fields([
    ["path", showName(file.path)],
    ["type", file.type],
    ["target", file.target === undefined ? undefined : showName(file.target)],
    ["size", showExactBytes(file.size)],
    ["mode", `${permissions} (${showMode(file.mode)})`],
    ["owner", `uid ${file.uid}, gid ${file.gid}`],
    ["links", String(file.nlink)],
    ["inode", `${file.ino}, generation ${file.generation}`],
    ["changed in", `consistency point ${file.version}`],
    ["modified", showTime(file.mtime)],
    ["changed", showTime(file.ctime)],
    ["accessed", showTime(file.atime)],
    ["created", showTime(file.btime)],
    ["dos", dos === "" ? undefined : dos],
    ...Object.entries(file.xattrs ?? {}).map(([name, value]) =>
      [`xattr ${showName(name)}`, showValue(value)] as const
    ),
  ]);
}

/** An attribute's value: as text where it is one. */
function showValue(base64: string): string {
  const bytes = Uint8Array.fromBase64(base64);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return `"${showName(text)}"`;
  } catch {
    return `base64 ${base64}`;
  }
}

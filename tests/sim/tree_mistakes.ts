/**
 * Builds of volcast with mistakes made on purpose, which the simulation of a tree must see: the source with
 * some lines changed, run in a process of its own.
 *
 * @module
 */

import { assert } from "../../src/core/mod.ts";

/** A wrong build. */
export interface Mistake {
  /** What it does wrong. */
  readonly name: string;
  /** The file that is changed, below `src`. */
  readonly file: string;
  /** Text, which stands there once, and what stands there instead. */
  readonly changes: readonly (readonly [right: string, wrong: string])[];
  /** In what words it is seen. */
  readonly says: RegExp;
  /** A seed with which it is seen soon. */
  readonly seed: number;
}

/** See the module. */
export const MISTAKES: readonly Mistake[] = [
  {
    name: "a root is taken for current before its superblock is durable",
    file: "volume/superblocks.ts",
    changes: [[
      "this.#io.writeRun(next.sequence % 2, encodeSuperblock(next));\n      await this.#io.store.sync();",
      'this.#io.writeRun(next.sequence % 2, encodeSuperblock(next));\n      if (step.kind !== "apply") await this.#io.store.sync();',
    ]],
    says: /I3: .* confirms what is not durable/,
    seed: 1,
  },
  {
    name: "what came is not looked at before it becomes current",
    file: "image/apply.ts",
    changes: [
      [
        "crcs[this.#done] = checkFrame(frame, run.start, run.count);",
        "crcs[this.#done] = sealFrame(frame, run.start, run.count);",
      ],
      [
        "checkEnd(end, frameCount, digestOf(header, indexCrc, crcs));",
        "if (crcs.length < 0) checkEnd(end, frameCount, digestOf(header, indexCrc, crcs));",
      ],
      ["await verifyReceived(", "if (plane.pageCount < 0) await verifyReceived("],
    ],
    says: /VBN \d+ of '.*' has other bytes|Cannot read VBN \d+/,
    seed: 1,
  },
  {
    name: "a transfer goes on from the progress of another image",
    file: "image/apply.ts",
    changes: [
      [
        "if (transfer === undefined || transfer.image !== this.#identity()) return 0;",
        "if (transfer === undefined) return 0;",
      ],
      [
        "checkEnd(end, frameCount, digestOf(header, indexCrc, crcs));",
        "if (crcs.length < 0) checkEnd(end, frameCount, digestOf(header, indexCrc, crcs));",
      ],
      ["await verifyReceived(", "if (plane.pageCount < 0) await verifyReceived("],
    ],
    says: /VBN \d+ of '.*' has other bytes|Cannot read VBN \d+/,
    seed: 2,
  },
  {
    name: "a site does not tell what those below it stand on",
    file: "replication/node.ts",
    changes: [["needs: [...needs] };", "needs: [...needs].slice(needs.size) };"]],
    says: /9: full images of/,
    seed: 1,
  },
  {
    name: "what a late parent says of master is believed",
    file: "replication/pull.ts",
    changes: [[
      "return isEarlier(moved, known);",
      "return isEarlier(moved, known) && isEarlier(known, moved);",
    ]],
    says: /went back to/,
    seed: 2,
  },
  {
    name: "a snapshot that a site stands on can be deleted",
    file: "volume/writer.ts",
    changes: [["state.snapshot !== id && !state.needs.includes(id)", "true"]],
    says: /was deleted although it was needed/,
    seed: 1,
  },
];

const ROOT = new URL("../../", import.meta.url);

/** Lives trees with a wrong build, from its seed on. @returns What is said in the end. */
export async function liveWith(
  { file, changes, seed }: Mistake,
  { seeds, steps }: { seeds: number; steps: number },
): Promise<string> {
  const directory = Deno.makeTempDirSync({ prefix: "volcast-mistake-" });
  try {
    const right = new URL(`src/${file}`, ROOT);
    let text = Deno.readTextFileSync(right);
    for (const [from, to] of changes) {
      assert(text.split(from).length === 2, `${file} has once: ${from}`);
      text = text.replace(from, () => to);
    }
    // What it imports lies where the right one lies.
    text = text.replace(
      /(from|import) "(\.[^"]+)"/g,
      (_, word, path) => `${word} "${new URL(path, right)}"`,
    );
    const wrong = `${directory}/wrong.ts`;
    Deno.writeTextFileSync(wrong, text);
    const { imports } = JSON.parse(Deno.readTextFileSync(new URL("deno.json", ROOT)));
    const map = { imports: { ...imports, [String(right)]: `file://${wrong}` } };
    Deno.writeTextFileSync(`${directory}/map.json`, JSON.stringify(map));
    const script = new URL("scripts/tree.ts", ROOT);
    const { stderr, success } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "-A", "--no-check", "--no-lock", "--import-map", `${directory}/map.json`],
        ...[String(script), "--stop", "--seed", `${seed}`, "--seeds", `${seeds}`],
        ...["--steps", `${steps}`],
      ],
      stdin: "null",
    }).output();
    return success ? "" : new TextDecoder().decode(stderr);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

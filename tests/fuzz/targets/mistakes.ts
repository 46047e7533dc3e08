/**
 * Targets with mistakes made on purpose: the fuzzer must see each of them.
 *
 * @module
 */

import { DirectoryPage } from "../../../src/format/mod.ts";
import { Volume } from "../../../src/volume/mod.ts";
import type { Step, Target } from "../target.ts";
import { images } from "./images.ts";
import { metadata } from "./metadata.ts";

type About = (step: Step) => boolean;

/** A change of a page of a directory in the scene. */
const isOfDirectory: About = ({ op, at }) =>
  op === "set" && /\/(2|1[6-9]|2[0-5])\/0\/\d+$/.test(String(at));

/**
 * A target in whose process a check is missing from the first hostile input on.
 *
 * @param isTried Which inputs are: those that have such a step.
 */
function mistaken(name: string, target: Target, isTried: About, mistake: () => void): Target {
  return {
    ...target,
    name,
    async prepare() {
      const prepared = await target.prepare();
      let isMade = false;
      return {
        ...prepared,
        make(random) {
          for (;;) {
            const input = prepared.make(random);
            if (input.some(isTried)) return input;
          }
        },
        async run(input, watch) {
          if (input.length > 0 && !isMade) mistake();
          isMade ||= input.length > 0;
          await prepared.run(input, watch);
        },
      };
    },
  };
}

const { writeReceived } = Volume.prototype;

/** All of them. */
export const MISTAKES: readonly Target[] = [
  mistaken("an entry of a directory page is read wherever it lies", metadata, isOfDirectory, () => {
    DirectoryPage.prototype.name = function (index: number): Uint8Array {
      const view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
      const at = view.getUint16(16 + index * 2, true);
      return this.bytes.subarray(at + 6, at + 6 + view.getUint8(at + 5));
    };
  }),
  mistaken("a block that comes in is written one place further on", images, () => true, () => {
    Volume.prototype.writeReceived = function (vbn, ...rest): void {
      writeReceived.call(this, vbn + 1, ...rest);
    };
  }),
];

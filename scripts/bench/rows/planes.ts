/**
 * Choosing the blocks of an increment of a volume of 1 TiB, against one pass over its planes.
 *
 * @module
 */

import { inTurns } from "../measure.ts";
import { choose, type Pair, passOver, planesOfTebibyte } from "../planes.ts";
import { cost, type Line, lineOf, type Outcome, type Row } from "../row.ts";

const PASS = "a memory pass over both planes";
/** More than of others: each is short, and the first ones are not compiled yet. */
const TURNS = 15;

/** See the module. */
export const choosing: Row = {
  id: "choose",
  title: "choosing an increment of 1 TiB",
  async measure(): Promise<Outcome> {
    return {
      lines: [
        await compared("1 word of 100 differs", planesOfTebibyte({ every: 100 })),
        await compared("1 word of 10,000 differs", planesOfTebibyte({ every: 10_000 })),
      ],
    };
  },
};

async function compared(what: string, pair: Pair): Promise<Line> {
  let chosen = 0;
  let passed = 0;
  const figures = await inTurns(TURNS, [
    {
      name: "volcast",
      run: () => void (chosen = choose(pair)),
      check() {
        if (chosen !== pair.blocks) {
          throw new Error(`${chosen} of ${pair.blocks} blocks were chosen`);
        }
      },
    },
    {
      name: PASS,
      run: () => void (passed = passOver(pair)),
      check() {
        if (!Number.isInteger(passed)) throw new Error("nothing was read");
      },
    },
  ]);
  return lineOf(figures, { own: "volcast", against: PASS }, {
    what: `choosing an increment of 1 TiB, ${what}`,
    unit: "s",
    target: cost(2),
  });
}

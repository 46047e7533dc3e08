/**
 * From the start of the program to its first answer, with a volume of many files.
 *
 * @module
 */

import { Server } from "../../../tests/e2e/harness.ts";
import { sleep } from "../../../tests/helpers/until.ts";
import type { Lab } from "../lab.ts";
import { inTurns, median } from "../measure.ts";
import { freePort, must } from "../process.ts";
import { lineOfLimit, type Outcome, type Row } from "../row.ts";
import { pull, volcast } from "../volcast.ts";

const LIMIT_MS = 400;
const TURNS = 5;

/** See the module. */
export const start: Row = {
  id: "start",
  title: "start to the first answer",
  measure: (lab: Lab) =>
    lab.within("start", async (directory): Promise<Outcome> => {
      const origin = await lab.origin("many");
      const volume = `${directory}/site.vol`;
      await pull(volume, origin.url);
      const figures = await inTurns(TURNS, [
        { name: "serve", run: () => firstAnswer(volume), check: () => {} },
        {
          name: "version",
          run: async () => void await must(volcast("version")),
          check: () => {},
        },
      ]);
      const ms = figures.get("serve")!;
      const nothing = median(figures.get("version")!) * 1000;
      const line = lineOfLimit("start to the first answer", {
        unit: "ms",
        figure: median(ms),
        limit: LIMIT_MS,
        note: `a process that does nothing, volcast version, takes ${nothing.toFixed(0)} ms`,
      });
      return { lines: [{ ...line, figures: ms }] };
    }),
};

/** The ms until a server that is started now has answered. */
async function firstAnswer(volume: string): Promise<number> {
  const port = freePort();
  const begin = performance.now();
  const starting = Server.start([volume], { port });
  const answering = answered(`http://127.0.0.1:${port}/readyz`, begin);
  await using _ = await starting;
  return await answering;
}

/** The ms from `begin` until a URL answers. */
async function answered(url: string, begin: number): Promise<number> {
  for (;;) {
    const status = await fetch(url).then(async (response) => {
      await response.text();
      return response.status;
    }, () => undefined);
    const ms = performance.now() - begin;
    if (status === 200) return ms;
    if (status !== undefined) throw new Error(`The first answer was ${status}`);
    if (ms > 60_000) throw new Error("There was no answer in a minute");
    await sleep(2);
  }
}

/**
 * Writing a volume's tree into a directory, against `cp -a` of the tree.
 *
 * @module
 */

import { assertSame, digestOfDirectory } from "../digest.ts";
import { clear } from "../lab.ts";
import { type Contestant, inTurns } from "../measure.ts";
import { must } from "../process.ts";
import { cost, lineOf, type Outcome, type Row } from "../row.ts";
import { pull, volcast } from "../volcast.ts";

const COPY = "cp -a";

/** See the module. */
export const exportTree: Row = {
  id: "export",
  title: "export of a tree",
  measure: (lab) =>
    lab.within("export", async (directory): Promise<Outcome> => {
      const origin = await lab.origin("many");
      const volume = `${directory}/site.vol`;
      await pull(volume, origin.url);
      const by = (name: string, command: (target: string) => string[]): Contestant => {
        const target = `${directory}/${name.replaceAll(" ", "-")}`;
        return {
          name,
          prepare: () => clear(target),
          run: async () => void await must(command(target)),
          async check() {
            assertSame(digestOfDirectory(target), origin.digest("first"));
            await clear(target);
          },
        };
      };
      const figures = await inTurns(lab.scale.turns, [
        by("volcast", (target) => volcast("export", volume, target)),
        by(COPY, (target) => ["cp", "-a", origin.releases.first, target]),
      ]);
      const target = cost(1.5);
      const rest = { what: "export of 'many'", unit: "s", target } as const;
      return { lines: [lineOf(figures, { own: "volcast", against: COPY }, rest)] };
    }),
};

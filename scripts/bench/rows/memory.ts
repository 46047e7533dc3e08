/**
 * What a site takes of memory while it pulls.
 *
 * @module
 */

import { peakMemory } from "../process.ts";
import { lineOfLimit, type Outcome, type Row } from "../row.ts";
import { Site } from "../site.ts";

const LIMIT = 256 * 2 ** 20;

/** See the module. */
export const siteMemory: Row = {
  id: "memory",
  title: "memory of a site during pulls",
  measure: (lab) =>
    lab.within("memory", async (directory): Promise<Outcome> => {
      const origin = await lab.origin("many");
      await using site = await Site.start(`${directory}/site.vol`, {
        name: "site",
        parent: origin.url,
        release: "first",
      });
      const pulled = site.pulled("second");
      await origin.point("second");
      await pulled;
      const line = lineOfLimit("memory of a site, after a full pull and an increment of 'many'", {
        unit: "B",
        figure: peakMemory(site.server.process.pid),
        limit: LIMIT,
        note: "most that was resident",
      });
      return { lines: [line] };
    }),
};

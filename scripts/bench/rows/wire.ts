/**
 * What goes over the line: an image costs little more than its blocks.
 *
 * @module
 */

import { clear } from "../lab.ts";
import type { Origin } from "../origin.ts";
import { Proxy } from "../../../tests/e2e/proxy.ts";
import { cost, type Line, type Outcome, type Row } from "../row.ts";
import { assertPulled, pull } from "../volcast.ts";

/** See the module. */
export const wireBytes: Row = {
  id: "wire",
  title: "bytes on the line",
  measure: (lab) =>
    lab.within("wire", async (directory): Promise<Outcome> => {
      const origin = await lab.origin("many");
      const volume = `${directory}/site.vol`;
      const full = await counted(origin, { volume, expression: "first" });
      await origin.point("second");
      const increment = await counted(origin, { volume, expression: "second - first" });
      await clear(volume);
      return { lines: [full, increment] };
    }),
};

async function counted(
  origin: Origin,
  { volume, expression }: { volume: string; expression: string },
): Promise<Line> {
  const plan = await origin.plan(expression);
  await using relay = new Proxy(origin.port);
  const pulled = await pull(volume, relay.url);
  assertPulled(pulled, { bytes: plan.bytes });
  if (relay.sent < plan.bytes) {
    throw new Error(`only ${relay.sent} of ${plan.bytes} bytes were sent`);
  }
  return {
    what: `bytes on the line, ${expression}`,
    unit: "B",
    figure: relay.sent,
    against: "bytes of the blocks",
    other: plan.blockBytes,
    target: cost(1.01),
  };
}

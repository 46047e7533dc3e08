/**
 * A full copy, an increment, and nothing new: against other ways to keep a copy of a tree. They have no
 * targets, take one turn each, and what they hold is restored and compared after each step.
 *
 * @module
 */

import { assertSame, digestOfDirectory, digestOfVolume } from "../digest.ts";
import { clear, type Lab } from "../lab.ts";
import { type Contestant, inTurns } from "../measure.ts";
import type { Origin, Release } from "../origin.ts";
import { borg, casync, ostree, restic } from "../peers/archives.ts";
import { btrfs } from "../peers/btrfs.ts";
import type { Replica, ReplicaKind } from "../peers/replica.ts";
import { missing } from "../programs.ts";
import { type Line, lineOf, type Outcome, type Row, without } from "../row.ts";
import { assertPulled, pull } from "../volcast.ts";

/** The row of a kind of replica. */
function replicaRow(id: string, kind: ReplicaKind): Row {
  return {
    id,
    title: `copies of 'many' by ${kind.name}`,
    measure: (lab) => lab.within(id, (directory) => measure(lab, kind, directory)),
  };
}

/** All of them. */
export const replicas: readonly Row[] = [
  replicaRow("restic", restic),
  replicaRow("borg", borg),
  replicaRow("casync", casync),
  replicaRow("ostree", ostree),
  replicaRow("btrfs", btrfs),
];

/** What is done, one after the other; each begins where the one before ended. */
const STEPS: readonly { what: string; release: Release; kind: "full" | "increment" | "current" }[] =
  [
    { what: "full copy of 'many'", release: "first", kind: "full" },
    { what: "1 % changed in 'many'", release: "second", kind: "increment" },
    { what: "nothing new in 'many'", release: "second", kind: "current" },
  ];

async function measure(lab: Lab, kind: ReplicaKind, directory: string): Promise<Outcome> {
  const absent = missing(kind.programs);
  if (absent.length > 0) return without(kind.name, absent);
  const origin = await lab.origin("many");
  const { first, second } = origin.releases;
  let replica: Replica;
  try {
    replica = await kind.open(directory, { first, second });
  } catch (error) {
    const why = error instanceof Error ? error.message.trim() : String(error);
    return { lines: [], leftOut: [{ what: kind.name, why }] };
  }
  const lines: Line[] = [];
  try {
    for (const step of STEPS) lines.push(await take({ origin, replica, kind, directory }, step));
  } finally {
    await replica[Symbol.asyncDispose]();
  }
  return { lines };
}

interface Bench {
  readonly origin: Origin;
  readonly replica: Replica;
  readonly kind: ReplicaKind;
  readonly directory: string;
}

async function take(
  { origin, replica, kind, directory }: Bench,
  step: (typeof STEPS)[number],
): Promise<Line> {
  await origin.point(step.release);
  const figures = await inTurns(1, [
    byVolcast(origin, `${directory}/site.vol`, step),
    byReplica(origin, replica, { name: kind.name, release: step.release, directory }),
  ]);
  const rest = { what: step.what, unit: "s" } as const;
  return lineOf(figures, { own: "volcast", against: kind.name }, rest);
}

function byVolcast(
  origin: Origin,
  volume: string,
  { release, kind }: { release: Release; kind: "full" | "increment" | "current" },
): Contestant {
  return {
    name: "volcast",
    run: async () => assertPulled(await pull(volume, origin.url), { kind, name: release }),
    check: async () => assertSame(await digestOfVolume(volume), origin.digest(release)),
  };
}

function byReplica(
  origin: Origin,
  replica: Replica,
  { name, release, directory }: { name: string; release: Release; directory: string },
): Contestant {
  // Programs that know files again by their paths shall find every release at the same one.
  const live = `${directory}/live`;
  const source = origin.releases[release];
  return {
    name,
    async prepare() {
      origin.digest(release);
      await Deno.rename(source, live);
    },
    async run() {
      try {
        await replica.update(release, live);
      } finally {
        await Deno.rename(live, source);
      }
    },
    async check() {
      const target = `${directory}/restored`;
      const restored = await replica.restore(target);
      const { extent = "all" } = replica;
      const expected = extent === "all"
        ? origin.digest(release)
        : digestOfDirectory(origin.releases[release], extent);
      assertSame(digestOfDirectory(restored, extent), expected);
      await clear(target);
    },
  };
}

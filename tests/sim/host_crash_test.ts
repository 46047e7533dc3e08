// A full image takes the place of an older volume by renames: whatever names and bytes a host that lost
// power still has, there is the old volume or the new one, and the next pull goes on.

import { assert, assertEquals } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { applyImage } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import {
  adoptIncoming,
  createVolumeFile,
  fsck,
  openIncoming,
  openVolumeFile,
  type StoreKind,
  Volume,
} from "../../src/volume/mod.ts";
import { Random } from "../helpers/random.ts";
import { imageOf } from "../helpers/replicas.ts";
import { sourceOfImage } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";
import { fill } from "../helpers/volume_files.ts";
import { quiet } from "./crash_sim.ts";
import { HOST, HostDirectory } from "./host_directory.ts";

const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? 1);

async function parentVolume(): Promise<Volume> {
  const volume = await Volume.create(new MemoryStore(400), quiet());
  await fill(volume, 1, 9000);
  await fill(volume, 2, 9000);
  return volume;
}

function pathOf(kind: StoreKind): string {
  return kind === "striped"
    ? ["a", "b", "c"].map((name) => `${HOST}/${name}`).join()
    : `${HOST}/vol`;
}

/** A full image comes in beside what is there, and takes its name. */
async function pullFull(kind: StoreKind, parent: Volume, name: string): Promise<void> {
  const path = pathOf(kind);
  const { id } = parent.resolve(name);
  const image = { volumeId: parent.volumeId, capacity: parent.zone.capacity, top: id };
  const volume = openIncoming(path, image, { packed: kind === "packed", ...quiet() });
  if (!volume.hasRoot) {
    await applyImage(volume, sourceOfImage(imageOf(parent, name)), { recordBytes: 40_000 });
  }
  await volume.close();
  adoptIncoming(path);
}

/** The name of what is found under the path. @throws When it is not whole. */
function lookAt(path: string): string {
  const volume = openVolumeFile(path, quiet());
  try {
    assertEquals(fsck(volume).findings, []);
    return volume.current.name;
  } finally {
    volume.abandon();
  }
}

/** Problems after a loss of power at many events of a pull that replaces a volume. */
async function tryPull(
  kind: StoreKind,
  options: { seed: number; syncsNames?: boolean; cuts: number },
): Promise<{ problems: string[]; seen: Record<string, number> }> {
  const parent = await parentVolume();
  const path = pathOf(kind);
  const made = new HostDirectory();
  {
    using _ = made.install();
    await pullFull(kind, parent, "s1");
  }
  const host = made.found(made.events.length);
  host.syncsNames = options.syncsNames ?? true;
  {
    using _ = host.install();
    await pullFull(kind, parent, "s2");
  }
  const random = new Random(options.seed);
  const problems: string[] = [];
  const seen: Record<string, number> = { s1: 0, s2: 0 };
  const last = host.events.length;
  // Names change and syncs come at few of many events: each of those, and some others.
  const cuts = new Set([last]);
  for (const [i, { kind }] of host.events.entries()) {
    if (kind !== "write" || random.below(last) < options.cuts) cuts.add(i).add(i + 1);
  }
  for (const cut of cuts) {
    // Where names may be lost chance has to find one of a few ways; where only bytes may, any will do.
    const turns = cut === last ? 40 : host.events[cut - 1]?.kind === "name" ? 20 : 3;
    for (let turn = 0; turn < turns; turn++) {
      const found = host.found(cut, random);
      using _ = found.install();
      try {
        const name = lookAt(path);
        seen[name]++;
        assert(cut < last || name === "s2", `${name} was found, s2 was acknowledged`);
        await pullFull(kind, parent, "s2");
        assertEquals(lookAt(path), "s2");
        // And power goes once more, while the pull goes on.
        const again = found.found(random.below(found.events.length + 1), random);
        using __ = again.install();
        assert(lookAt(path) === "s2" || name === "s1", `s1 after ${name}`);
        await pullFull(kind, parent, "s2");
        assertEquals(lookAt(path), "s2");
      } catch (error) {
        problems.push(`cut ${cut} of ${last}, turn ${turn}: ${error}`);
      }
    }
  }
  await parent.close();
  return { problems, seen };
}

for (const kind of ["plain", "packed", "striped"] as const) {
  test(`a full image replaces a ${kind} volume, or does not, when power goes`, async () => {
    const { problems, seen } = await tryPull(kind, { seed: SEED, cuts: 20 });
    assertEquals(problems, [], `seed ${SEED}`);
    assert(seen.s1 > 10 && seen.s2 > 3, JSON.stringify(seen));
  });
}

test("the host's crashes show a rename that is acknowledged and not durable", async () => {
  const { problems } = await tryPull("plain", { seed: SEED, cuts: 0, syncsNames: false });
  assert(problems.some((problem) => problem.includes("s2 was acknowledged")), problems[0]);
});

test("a new volume is there under its name once it is acknowledged", async () => {
  for (const kind of ["plain", "packed", "striped"] as const) {
    const host = new HostDirectory();
    {
      using _ = host.install();
      (await createVolumeFile(pathOf(kind), 2 ** 20, { kind, ...quiet() })).abandon();
    }
    const random = new Random(SEED);
    for (let cut = 0; cut <= host.events.length; cut += cut < host.events.length - 8 ? 5 : 1) {
      for (let turn = 0; turn < 4; turn++) {
        using _ = host.found(cut, random).install();
        try {
          lookAt(pathOf(kind));
        } catch (error) {
          const isTold = error instanceof VolcastError;
          assert(isTold && cut < host.events.length, `${kind}, cut ${cut}: ${error}`);
        }
      }
    }
  }
});

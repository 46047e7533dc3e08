// The file of an incremental mirror gets its name when it is a mirror: whatever names and bytes a host that
// lost power while it was made still has, there is none, or a whole one, and the next attempt makes it.

import { assert, assertEquals } from "@std/assert";
import { adoptImage, ImageStore, Pieces, piecesOf } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import {
  createMirrorFile,
  exists,
  fsck,
  openMirrorFile,
  peekMirrorFile,
  Volume,
} from "../../src/volume/mod.ts";
import { mediumOf } from "../helpers/pieces.ts";
import { Random } from "../helpers/random.ts";
import { imageOf } from "../helpers/replicas.ts";
import { bytesOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";
import { fill } from "../helpers/volume_files.ts";
import { quiet } from "./crash_sim.ts";
import { HOST, HostDirectory } from "./host_directory.ts";

const SEED = Number(Deno.env.get("VOLCAST_SEED") ?? 1);
const PATH = `${HOST}/site.mirror`;

/** A base image, on a host that does not crash. */
class Base {
  readonly path = "base";
  readonly #pieces: Pieces;
  readonly top: string;

  constructor(pieces: Pieces, top: string) {
    this.#pieces = pieces;
    this.top = top;
  }

  static async make(): Promise<Base> {
    const volume = await Volume.create(new MemoryStore(400), quiet());
    await fill(volume, 1, 90_000);
    const image = imageOf(volume, "s1");
    const medium = mediumOf("base", await bytesOf(image));
    await volume.close();
    return new Base(new Pieces(await piecesOf(medium, () => {}), () => {}), image.top.id);
  }

  /** Makes the mirror, and ends at once. */
  async mirror(): Promise<void> {
    const { path, top } = this;
    const { volumeId } = this.#pieces.header;
    const made = { volumeId, site: "rome", store: await this.#store(), top, path };
    const volume = await createMirrorFile(PATH, made, async (volume) => {
      await adoptImage(volume, this.#pieces);
    });
    volume.abandon();
  }

  /** Whether there is a mirror. @throws When there is something else. */
  async look(): Promise<boolean> {
    if (!exists(PATH)) return false;
    assertEquals(peekMirrorFile(PATH)?.base, { top: this.top, path: this.path });
    const { path, top } = this;
    const volume = openMirrorFile(PATH, { store: await this.#store(), top, path }, quiet());
    try {
      assertEquals([volume.current.id, volume.local.site], [top, "rome"]);
      assertEquals(fsck(volume).findings, []);
    } finally {
      volume.abandon();
    }
    return true;
  }

  #store(): Promise<ImageStore> {
    return ImageStore.open([this.#pieces]);
  }
}

/** Problems after a loss of power at each event of making a mirror. */
async function tryMaking(
  options: { syncsNames?: boolean; turns: number },
): Promise<{ problems: string[]; there: number; missing: number }> {
  const base = await Base.make();
  const host = new HostDirectory();
  host.syncsNames = options.syncsNames ?? true;
  {
    using _ = host.install();
    await base.mirror();
  }
  const random = new Random(SEED);
  const last = host.events.length;
  const result = { problems: [] as string[], there: 0, missing: 0 };
  for (let cut = 0; cut <= last; cut++) {
    // One sector after the other is written: what is between is much the same.
    const isEdge = [cut - 1, cut].some((at) => host.events[at]?.kind !== "write");
    for (let turn = isEdge || cut % 16 === 0 ? options.turns : 0; turn > 0; turn--) {
      using _ = host.found(cut, random).install();
      try {
        const isThere = await base.look();
        result[isThere ? "there" : "missing"]++;
        assert(isThere || cut < last, "it was acknowledged");
        if (!isThere) await base.mirror();
        assert(await base.look(), "the next attempt makes it");
      } catch (error) {
        result.problems.push(`cut ${cut} of ${last}: ${error}`);
      }
    }
  }
  return result;
}

test("a mirror has its name when it is whole, and not before, when power goes", async () => {
  const { problems, there, missing } = await tryMaking({ turns: 6 });
  assertEquals(problems, [], `seed ${SEED}`);
  assert(there > 5 && missing > 30, `${there} there, ${missing} missing`);
});

test("the host's crashes show a mirror that is acknowledged and whose name is not durable", async () => {
  const { problems } = await tryMaking({ turns: 12, syncsNames: false });
  assert(problems.some((problem) => problem.includes("it was acknowledged")), problems[0]);
});

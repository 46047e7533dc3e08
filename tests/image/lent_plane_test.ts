/**
 * Parents that make increments since snapshots they never had: with the plane that a child brings, the
 * image is the origin's, byte by byte, however much was used again in between.
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import { applyImage, Image, planeImage, receivePlane } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { assertClean, History } from "../helpers/history.ts";
import { forSeeds, Random, seeds } from "../helpers/random.ts";
import { advance, assertSame, imageOf, replicaOf } from "../helpers/replicas.ts";
import { bytesOf, sourceOf, streamOf } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

/** A history in which snapshots come and go, and blocks are used again. */
async function busy(random: Random): Promise<History> {
  const history = await History.begin(new MemoryStore(1100), random, { writeBytes: 20_000 });
  await history.change(30);
  for (let i = 0; i < 12; i++) {
    await history.change(8);
    await history.churn(2, 100_000);
    await history.snapshot();
    if (history.kept.length > 4) await history.deleteSnapshot(random.pick(history.kept));
  }
  return history;
}

test("with a plane that was brought, the image is the origin's, byte by byte", () =>
  forSeeds(seeds(1, 12), async (random) => {
    const history = await busy(random);
    const origin = history.volume;
    for (const base of history.kept.slice(0, -1)) {
      const child = await replicaOf(origin, base.id);
      for (const top of history.kept.slice(history.kept.indexOf(base) + 1)) {
        const parent = await replicaOf(origin, top.id);
        const missing = parent.volume.lent.missing(base.id);
        if (missing === undefined) {
          // It was deleted before the top was taken, or made after it.
          assert(!parent.volume.listed().some(({ id }) => id === base.id));
          continue;
        }
        assertEquals(parent.volume.findBase(base.id), undefined);
        const brought = await bytesOf(planeImage(child.volume, child.volume.current));
        await receivePlane(parent.volume, streamOf(brought));
        const since = parent.volume.resolveBase(base.id);
        const image = await bytesOf(new Image(parent.volume, parent.volume.resolve(top.id), since));
        assertEquals(image, await bytesOf(imageOf(origin, top.id, base.id)));
        const site = await replicaOf(origin, base.id);
        await applyImage(site.volume, sourceOf(image), { drainMs: 0 });
        assertClean(site.volume);
        assertSame({ volume: origin, store: history.store }, site, top.id);
        parent.volume.abandon();
        site.volume.abandon();
      }
      child.volume.abandon();
    }
    await history.close();
  }));

test("a plane is the snapshot's or none: no bit of what brings it can be flipped unseen", async () => {
  const history = await busy(new Random(50));
  const origin = history.volume;
  const [base] = history.kept;
  const child = await replicaOf(origin, base.id);
  const top = history.kept.at(-1)!;
  const parent = await replicaOf(origin, top.id);
  const image = planeImage(child.volume, child.volume.current);
  const brought = await bytesOf(image);
  assert(brought.length < 60_000, `${brought.length} bytes for a plane of one page`);
  const random = new Random(51);
  let refused = 0;
  for (let i = 0; i < 200; i++) {
    const wrong = brought.slice();
    wrong[random.below(wrong.length)] ^= 1 << random.below(8);
    await receivePlane(parent.volume, streamOf(wrong)).then(
      () => {},
      (error) => {
        refused++;
        assert(error instanceof VolcastError || /ended|broke/.test(String(error)), String(error));
      },
    );
    // Where a name, a time or the end was hit, it is the plane nevertheless.
    const plane = parent.volume.lent.plane(base.id);
    if (plane !== undefined) {
      const since = parent.volume.resolveBase(base.id);
      const made = new Image(parent.volume, parent.volume.resolve(top.id), since);
      assertEquals(await bytesOf(made), await bytesOf(imageOf(origin, top.id, base.id)));
    }
  }
  assert(refused > 150, `${refused} refused`);
  parent.volume.abandon();
  child.volume.abandon();
  await history.close();
});

test("a plane is taken only for what the current root lists and is not here", async () => {
  const history = await busy(new Random(60));
  const origin = history.volume;
  const [first, last] = [history.kept[0], history.kept.at(-1)!];
  const parent = await replicaOf(origin, last.id);
  const refuses = (image: Image, to = parent.volume) =>
    assertRejects(
      async () => await receivePlane(to, streamOf(await bytesOf(image))),
      VolcastError,
      "Cannot take the plane",
    );
  await refuses(planeImage(origin, origin.resolve(last.id)));
  await refuses(planeImage(origin, origin.resolve(first.id)), origin);
  const other = await busy(new Random(61));
  await refuses(planeImage(other.volume, other.volume.resolve(other.kept[0].id)));
  // A whole image is no plane, though it has one.
  await refuses(imageOf(origin, first.id));
  // The next root may not list it: then the plane is none any more.
  await receivePlane(
    parent.volume,
    planeImage(origin, origin.resolve(first.id)).stream(),
  );
  assert(parent.volume.findBase(first.id) !== undefined);
  await history.deleteSnapshot(first);
  const next = (await history.snapshot())!;
  const image = imageOf(origin, next.id, last.id);
  await applyImage(parent.volume, sourceOf(await bytesOf(image)), { drainMs: 0 });
  assertEquals(parent.volume.findBase(first.id), undefined);
  parent.volume.abandon();
  await history.close();
  await other.close();
});

test("what was gone back from is a base only while all that is here was regular in it", async () => {
  const history = await History.begin(new MemoryStore(1100), new Random(70));
  await history.change(30);
  const names = ["s1", "s2", "s3"];
  for (const _ of names) {
    await history.change(5);
    await history.snapshot();
  }
  const parent = await replicaOf(history.volume, "s1");
  for (const name of ["s2", "s3"]) await advance(parent.volume, history.volume, name);
  const child = await replicaOf(history.volume, "s3");
  const back = imageOf(history.volume, "s2", "s3");
  await applyImage(parent.volume, sourceOf(await bytesOf(back)), { drainMs: 0 });
  const { id } = history.volume.resolve("s3");
  assertEquals(parent.volume.lent.missing(id)?.name, "s3");
  await receivePlane(parent.volume, planeImage(child.volume, child.volume.current).stream());
  const since = parent.volume.resolveBase(id);
  const image = new Image(parent.volume, parent.volume.current, since);
  assertEquals(await bytesOf(image), await bytesOf(back));
  await parent.volume.updateLocal((state) => {
    state.retracted = state.retracted!.map((one) => ({ ...one, regular: one.regular.slice(0, 0) }));
  });
  assertEquals(parent.volume.findBase(id), undefined);
  // Forward again it is listed, or is here: nothing is retracted any more.
  await advance(parent.volume, history.volume, "s3");
  assertEquals(parent.volume.local.retracted, []);
  parent.volume.abandon();
  child.volume.abandon();
  await history.close();
});

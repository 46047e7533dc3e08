import { assert, assertEquals } from "@std/assert";
import { applyImage, Image } from "../../src/image/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { Marks } from "../../src/volume/mod.ts";
import { assertClean, History } from "../helpers/history.ts";
import { forSeeds, seeds } from "../helpers/random.ts";
import { assertSame, replicaOf } from "../helpers/replicas.ts";
import { bytesOf, sourceOfImage } from "../helpers/streams.ts";
import { test } from "../helpers/strict.ts";

test("an image from marks has the bytes of the computed one, and leads a replica on", async () => {
  await forSeeds(seeds(1, 6), async (random) => {
    const history = await History.begin(new MemoryStore(3000), random, { writeBytes: 60_000 });
    const { volume } = history;
    const marks = new Marks(1);
    await volume.exclusive(({ space }) => void space.marks.add(marks));
    const taken = ({ id }: { id: string }) => marks.turn(id);
    let base = (await history.snapshot({ taken }))!;
    const replica = await replicaOf(volume, base.id);
    for (let round = 0; round < 8; round++) {
      for (let i = random.below(4); i > 0; i--) await history.checkpoint();
      await history.change(random.between(1, 20));
      await history.churn(1, 50_000);
      const top = await history.snapshot({ taken });
      if (top === undefined) break;
      const [above, below] = [volume.resolve(top.id), volume.resolve(base.id)];
      const change = marks.between(base.id, top.id);
      assert(change !== undefined, "the marks know the way");
      const image = Image.between(volume, above, below, change);
      const computed = new Image(volume, above, below);
      assertEquals(image.etag, computed.etag);
      assertEquals(await bytesOf(image), await bytesOf(computed));
      // Some transfers do not arrive; the next one leads over both.
      if (random.oneIn(3)) continue;
      await applyImage(replica.volume, sourceOfImage(image));
      marks.confirmed(top.id);
      assertSame({ volume, store: history.store }, replica, top.id);
      assertClean(replica.volume);
      await history.deleteSnapshot(base);
      base = top;
    }
    await history.close();
  });
});

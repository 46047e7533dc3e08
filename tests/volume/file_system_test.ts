import { forSeeds, seeds } from "../helpers/random.ts";
import { History } from "../helpers/history.ts";
import { test } from "../helpers/strict.ts";
import { MemoryStore } from "../../src/store/mod.ts";

test("LiveFileSystem follows a model through changes, snapshots, reopens and crashes", async () => {
  await forSeeds(seeds(1, 12), async (random) => {
    const history = await History.begin(new MemoryStore(6000), random, { sparse: true });
    for (let step = 0; step < 60; step++) {
      await history.step();
      if (random.oneIn(6)) {
        await history.checkLive();
        history.check();
      }
    }
    await history.checkpoint();
    history.check();
    await history.close();
  });
});

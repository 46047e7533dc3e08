import { assertEquals } from "@std/assert";
import { inChunks } from "../../src/core/mod.ts";
import { forSeeds, seeds } from "../helpers/random.ts";
import { test } from "../helpers/strict.ts";

test("inChunks gives the same bytes in chunks of the size asked for", async () => {
  await forSeeds(seeds(1, 30), async (random) => {
    const parts = Array.from(
      { length: random.below(8) },
      () => random.bytes(random.pick([0, 1, 5, random.below(40)])),
    );
    const size = random.between(1, 30);
    async function* source() {
      yield* parts;
    }
    const chunks = await Array.fromAsync(inChunks(source(), size));
    assertEquals(chunks.flatMap((chunk) => [...chunk]), parts.flatMap((part) => [...part]));
    assertEquals(chunks.slice(0, -1).every(({ length }) => length === size), true);
    assertEquals(chunks.every(({ length }) => length > 0 && length <= size), true);
  });
});

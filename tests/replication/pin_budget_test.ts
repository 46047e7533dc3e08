import { assert, assertEquals, assertMatch } from "@std/assert";
import { keepPinBudget, Node, PinBudget } from "../../src/replication/mod.ts";
import { MemoryStore } from "../../src/store/mod.ts";
import { pinnedBlocks, Volume } from "../../src/volume/mod.ts";
import { assertClean, tickingClock } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { replicaOf } from "../helpers/replicas.ts";
import { test } from "../helpers/strict.ts";

/** Blocks of the one file that every release writes anew. */
const BLOCKS = 100;

interface Fixture extends AsyncDisposable {
  readonly node: Node;
  readonly volume: Volume;
  readonly log: string[];
  readonly budget: PinBudget;
  /** Publishes a release. */
  release(name: string): Promise<string>;
  /** Notes where a site stands. */
  stand(site: string, snapshot: string, ...needs: string[]): Promise<void>;
}

async function makeNode(bytes: number, capacity = 4000): Promise<Fixture> {
  const volume = await Volume.create(new MemoryStore(capacity), { now: tickingClock() });
  const node = new Node({ name: "origin", path: "unused.vol", volume });
  const log: string[] = [];
  let releases = 0;
  return {
    node,
    volume,
    log,
    budget: new PinBudget(node, { bytes, log: (text) => log.push(text) }),
    async release(name): Promise<string> {
      const { id } = await volume.exclusive((writer) => {
        const { fs } = writer;
        const ino = fs.lookup(2, "file") ?? fs.create(2, "file", { type: "file" });
        fs.write(ino, 0, new Random(++releases).bytes(BLOCKS * 4096));
        return writer.takeSnapshot(name, { pointers: ["master"] });
      });
      return id;
    },
    async stand(site, snapshot, ...needs): Promise<void> {
      await node.confirm(site, { snapshot, needs });
    },
    async [Symbol.asyncDispose](): Promise<void> {
      assertClean(volume);
      await volume.close();
    },
  };
}

const names = (list: readonly { name: string }[]) => list.map(({ name }) => name);
const mib = 2 ** 20;

test("a base over the budget becomes a shadow, with numbers in the log, and gives space back", async () => {
  await using origin = await makeNode(mib / 2);
  const { volume, budget, log } = origin;
  const a = await origin.release("a");
  await origin.stand("paris", a);
  await budget.enforce();
  assertEquals(log, [], "the master keeps nothing yet");
  const b = await origin.release("b");
  const kept = pinnedBlocks(volume, [a]);
  assert(kept >= BLOCKS && kept * 4096 < mib / 2, `${kept} blocks: within the budget`);
  await budget.enforce();
  assertEquals([names(volume.snapshots()), log], [["a", "b"], []]);
  // Further snapshots that nobody stands on go, as an operator does it.
  await origin.stand("paris", a, b);
  await origin.release("c");
  const free = volume.freeBlocks;
  await budget.enforce();
  assertEquals([names(volume.snapshots()), names(volume.shadows())], [["b", "c"], ["a"]]);
  assertEquals(log.length, 1);
  assertMatch(
    log[0],
    /^Made 'a' \(\S+\) a shadow: the site 'paris' keeps \d{6} bytes by it, the budget is 524288; 1\d\d blocks \(\d+ bytes\) may be used again$/,
  );
  assert(volume.freeBlocks > free + BLOCKS - 20, `${volume.freeBlocks} after ${free}`);
  assertEquals(volume.local.sites.paris.snapshot, a);
  await budget.enforce();
  assertEquals(log.length, 1, "nothing more to do");
});

test("a snapshot that a pointer names stays, and that is told once", async () => {
  await using origin = await makeNode(1000);
  const { volume, budget, log } = origin;
  const a = await origin.release("a");
  await volume.exclusive((writer) => writer.setPointer("stable", a));
  await origin.stand("paris", a);
  await origin.release("b");
  for (let i = 0; i < 3; i++) await budget.enforce();
  assertEquals(names(volume.shadows()), []);
  assertEquals(log.length, 1);
  assertMatch(
    log[0],
    /'paris' keeps \d+ bytes by 'a' .* the budget is 1000; it stays .* a pointer/,
  );
  await volume.exclusive((writer) => writer.setPointer("stable", volume.resolve("b").id));
  await budget.enforce();
  assertEquals(names(volume.shadows()), ["a"]);
});

test("what a site needs for its children counts, and what a pointer names is not blamed on it", async () => {
  await using origin = await makeNode(mib / 4);
  const { volume, budget } = origin;
  const ids = [];
  for (const name of ["a", "b", "c", "d"]) ids.push(await origin.release(name));
  // The master alone keeps much (once the file is gone), a child's base little.
  await origin.stand("paris", ids[3]);
  await volume.exclusive(async (writer) => {
    writer.fs.remove(2, "file");
    await writer.checkpoint();
  });
  await budget.enforce();
  assertEquals(names(volume.shadows()), []);
  await origin.stand("rome", ids[3], ids[1]);
  await budget.enforce();
  assertEquals([names(volume.snapshots()), names(volume.shadows())], [["a", "c", "d"], ["b"]]);
});

test("sites that share what they keep cannot fill the volume together", async () => {
  await using origin = await makeNode(mib);
  const { volume, budget, log } = origin;
  // Two bases with the same large file: neither keeps it alone.
  await volume.exclusive(({ fs }) => {
    fs.write(fs.create(2, "large", { type: "file" }), 0, new Random(9).bytes(700 * 4096));
  });
  const [a, b] = [await origin.release("a"), await origin.release("b")];
  await origin.stand("paris", a);
  await origin.stand("rome", b);
  await volume.exclusive(({ fs }) => fs.remove(2, "large"));
  await origin.release("c");
  for (const id of [a, b]) assert(pinnedBlocks(volume, [id]) * 4096 < mib);
  assert(pinnedBlocks(volume, [a, b]) * 4096 > 2 * mib);
  await budget.enforce();
  // With the first gone, the second one keeps it all, and that alone.
  assertEquals([names(volume.snapshots()), names(volume.shadows())], [["c"], ["a", "b"]]);
  assertMatch(log[0], /'a' .* a shadow: 2 sites together keep \d{7} bytes by their bases/);
  assertMatch(log[1], /'b' .* a shadow: the site 'rome' keeps \d{7} bytes by it/);
});

test("a shadow that the budget made goes when nobody stands on it; another one stays", async () => {
  await using origin = await makeNode(1000);
  const { volume, budget, log } = origin;
  const [a, b, c, d] = [
    await origin.release("a"),
    await origin.release("b"),
    await origin.release("c"),
    await origin.release("d"),
  ];
  await volume.exclusive((writer) => writer.shadowSnapshot(b));
  await origin.stand("paris", a);
  await origin.stand("rome", b, c);
  await budget.enforce();
  assertEquals(names(volume.shadows()), ["a", "b", "c"]);
  assertEquals(new Set(volume.local.shadowed), new Set([a, c]));
  await origin.stand("paris", d);
  await budget.enforce();
  assertEquals([names(volume.shadows()), volume.local.shadowed], [["b", "c"], [c]]);
  await origin.node.forget("rome");
  await budget.enforce();
  assertEquals([names(volume.shadows()), volume.local.shadowed], [["b"], []]);
  assertMatch(log.at(-1)!, /Deleted the shadow \S+: no site stands on it any more/);
});

test("a note of a shadow that is none is forgotten", async () => {
  await using origin = await makeNode(1000);
  const { volume, budget } = origin;
  const [a] = [await origin.release("a"), await origin.release("b")];
  await volume.updateLocal((local) => {
    local.shadowed = [a, "99-00000000"];
  });
  await budget.enforce();
  assertEquals([names(volume.snapshots()), volume.local.shadowed], [["a", "b"], []]);
});

test("keepPinBudget looks after each change, and at the start, until it is told to end", async () => {
  await using origin = await makeNode(1000);
  const { node, volume, log } = origin;
  const a = await origin.release("a");
  await origin.stand("paris", a);
  await origin.release("b");
  const stopping = new AbortController();
  const running = keepPinBudget(
    node,
    { bytes: 1000, log: (text) => log.push(text) },
    stopping.signal,
  );
  const until = async (says: RegExp) => {
    while (!log.some((text) => says.test(text))) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  await until(/Made 'a'/);
  assertEquals(names(volume.shadows()), ["a"]);
  await origin.stand("paris", volume.resolve("b").id);
  node.changed();
  await until(/Deleted/);
  assertEquals(names(volume.shadows()), []);
  await origin.release("c");
  node.changed();
  await until(/Made 'b'/);
  assertEquals(names(volume.shadows()), ["b"]);
  stopping.abort();
  await running;
  await origin.release("d");
  node.changed();
});

test("a replica has no budget to keep", async () => {
  await using origin = await makeNode(1);
  const a = await origin.release("a");
  const replica = await replicaOf(origin.volume, a);
  const node = new Node({ name: "paris", path: "unused.vol", volume: replica.volume });
  await node.confirm("rome", { snapshot: a, needs: [] });
  await replica.volume.updateLocal((local) => {
    local.shadowed = [a];
  });
  const log: string[] = [];
  await new PinBudget(node, { bytes: 1, log: (text) => log.push(text) }).enforce();
  await new PinBudget(new Node({ name: "oslo", path: "unused.vol" }), {
    bytes: 1,
    log: (text) => log.push(text),
  }).enforce();
  assertEquals([log, replica.volume.local.shadowed], [[], [a]]);
  await replica.volume.close();
});

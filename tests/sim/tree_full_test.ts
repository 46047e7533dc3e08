// A site's disk gets full at every block of a pull over HTTP, of a full image and of an increment: it stays
// what it was, says so, and goes on when there is room again.

import { assertEquals } from "@std/assert";
import { assert, VolcastError } from "../../src/core/mod.ts";
import type { MemoryStore } from "../../src/store/mod.ts";
import { MASTER } from "../../src/volume/mod.ts";
import { History } from "../helpers/history.ts";
import { Random } from "../helpers/random.ts";
import { copyOf } from "../helpers/stores.ts";
import { FileModel } from "../models/file_model.ts";
import { checkHeld, checkNothingLeft } from "./tree_invariants.ts";
import { SimNet } from "./tree_net.ts";
import { type Surroundings, TreeNode } from "./tree_node.ts";
import { SimTime } from "./tree_time.ts";
import { Truth } from "./truth.ts";

class Pair {
  readonly time = new SimTime();
  readonly truth = new Truth();
  readonly around: Surroundings;
  readonly origin: TreeNode;
  readonly #random = new Random(1);
  #history: History | undefined;

  constructor() {
    const { time } = this;
    const nothing = () => {};
    const watcher = { asks: nothing, sends: nothing };
    const net = new SimNet(time, this.#random.fork(), { count: nothing, watcher });
    const random = this.#random.fork();
    const names = ["origin", "paris"];
    this.around = { time, names, net, random, note: nothing, count: nothing, died: nothing };
    this.origin = this.node("origin", []);
  }

  node(name: string, parents: string[]): TreeNode {
    const node = new TreeNode(name, parents, this.around);
    node.follows = false;
    return node;
  }

  async begin(): Promise<void> {
    await this.origin.create(1024, "0123456789abcdef0123456789abcdef");
    this.origin.boot();
    const at = { store: {} as MemoryStore, volume: this.origin.volume!, model: new FileModel() };
    this.#history = History.resume(at, this.#random.fork(), { writeBytes: 20_000 });
  }

  async publish(): Promise<string> {
    const history = this.#history!;
    await this.time.finish(history.change(6));
    const { id } = (await this.time.finish(history.snapshot({ pointers: [MASTER] })))!;
    this.truth.learn(history.volume, history.volume.resolve(id), history.model);
    return id;
  }

  /** Fills a site's disk after so many blocks of a pull. @returns Whether that was too few. */
  async pullWithRoom(disk: MemoryStore | undefined, blocks: number, to: string): Promise<boolean> {
    const site = this.node("paris", ["origin"]);
    if (disk !== undefined) site.disk = site.newDisk(disk.capacity, copyOf(disk));
    site.boot();
    const before = site.volume?.current.id;
    site.process!.user.roomBlocks = blocks;
    const pulling = site.puller!.pull().then(() => undefined, (error) => error);
    const error = await this.time.finish(pulling);
    const isFull = error instanceof VolcastError && error.kind === "full";
    assert(error === undefined || isFull, `after ${blocks} blocks: ${error?.message}`);
    // Where only what follows the flip had no room, it is at the new release.
    if (before !== undefined) {
      assert([before, to].includes(site.volume!.current.id), "it is at either");
    }
    if (site.volume !== undefined) checkHeld(site.volume, this.truth);
    // Somebody makes room, and starts it again.
    site.crash();
    site.boot();
    if (site.volume !== undefined) checkHeld(site.volume, this.truth);
    await this.time.finish(site.puller!.pull());
    assertEquals(site.volume!.current.id, to);
    this.truth.checkBlocks(site.volume!, site.volume!.current);
    checkNothingLeft(site);
    site.crash();
    return isFull;
  }
}

Deno.test("a disk that gets full at every block of a pull leaves the site as it was", async () => {
  const pair = new Pair();
  await pair.begin();
  const first = await pair.publish();
  const site = pair.node("paris", ["origin"]);
  site.boot();
  await pair.time.finish(site.puller!.pull());
  assertEquals(site.volume!.current.id, first);
  const disk = site.disk!.found();
  site.crash();
  const second = await pair.publish();
  for (const before of [undefined, disk]) {
    let blocks = 0;
    while (await pair.pullWithRoom(before, blocks, second)) blocks++;
    assert(blocks > 10, `it was full ${blocks} times`);
  }
});

/**
 * btrfs send and receive, between two file systems in files.
 *
 * @module
 */

import { must } from "../process.ts";
import { pathOf } from "../programs.ts";
import { pipe, type Replica, type ReplicaKind } from "./replica.ts";

/** Size of each of the file systems; their files are sparse. */
const BYTES = 8 * 2 ** 30;

/** See the module. */
export const btrfs: ReplicaKind = {
  name: "btrfs send | receive",
  programs: ["mkfs.btrfs"],
  async open(directory, sources) {
    if (Deno.uid() !== 0) throw new Error("mounting takes root");
    await using stack = new AsyncDisposableStack();
    const origin = await mounted(`${directory}/btrfs-origin`, stack);
    const site = await mounted(`${directory}/btrfs-site`, stack);
    const live = `${origin}/live`;
    await must(["btrfs", "subvolume", "create", live]);
    for (const [name, tree] of Object.entries(sources)) {
      await must(["rsync", "-a", "--delete", `${tree}/`, `${live}/`]);
      await must(["btrfs", "subvolume", "snapshot", "-r", live, `${origin}/${name}`]);
    }
    await must(["sync"]);
    const rest = stack.move();
    return replica(origin, site, rest);
  },
};

function replica(origin: string, site: string, stack: AsyncDisposableStack): Replica {
  let base: string | undefined;
  let number = 0;
  return {
    async update(release) {
      // A release that comes again is a snapshot of its own, in which nothing has changed.
      const top = `${release}-${++number}`;
      await must([
        "btrfs",
        "subvolume",
        "snapshot",
        "-r",
        `${origin}/${release}`,
        `${origin}/${top}`,
      ]);
      const since = base === undefined ? [] : ["-p", `${origin}/${base}`];
      await pipe(["btrfs", "-q", "send", ...since, `${origin}/${top}`], [
        "btrfs",
        "-q",
        "receive",
        site,
      ]);
      base = top;
    },
    restore: () => Promise.resolve(`${site}/${base}`),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function mounted(path: string, stack: AsyncDisposableStack): Promise<string> {
  const image = `${path}.img`;
  Deno.writeFileSync(image, new Uint8Array());
  Deno.truncateSync(image, BYTES);
  await must([pathOf("mkfs.btrfs")!, "-q", image]);
  await Deno.mkdir(path);
  await must(["mount", "-o", "loop", image, path]);
  stack.defer(async () => {
    await must(["umount", path]);
    await Deno.remove(image);
  });
  return path;
}

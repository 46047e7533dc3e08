/**
 * A volume's size costs nothing: snapshots at 1 TiB are as quick as at 1 GiB, and memory stays small.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { getJson, Server, TempDirectory, volcast } from "./harness.ts";
import { noise } from "./trees.ts";

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

Deno.test("snapshots take the same time at 1 GiB and 1 TiB; a 1 TiB server stays under 400 MiB", async () => {
  using directory = new TempDirectory();
  const tree = directory.file("tree");
  Deno.mkdirSync(tree);
  for (let i = 0; i < 100; i++) Deno.writeFileSync(`${tree}/${i}`, noise(50_000));
  const servers: Server[] = [];
  try {
    for (const size of ["1GiB", "1TiB"]) {
      const volume = directory.file(`${size}.vol`);
      await volcast(["init", volume, "--size", size]);
      await volcast(["publish", volume, tree, "--as", "first"]);
      servers.push(await Server.start([volume]));
    }
    const times: [number[], number[]] = [[], []];
    for (let round = 0; round < 31; round++) {
      // In turns, so that what else the machine does hits both alike.
      for (const [which, server] of servers.entries()) {
        const begin = performance.now();
        const response = await fetch(`${server.url}/snapshots`, {
          method: "POST",
          body: JSON.stringify({ name: `s${round}` }),
        });
        assertEquals(response.status, 201, await response.text());
        times[which].push(performance.now() - begin);
      }
    }
    const [small, large] = times.map(median);
    console.log(`snapshot: ${small.toFixed(2)} ms at 1 GiB, ${large.toFixed(2)} ms at 1 TiB`);
    assert(large < small * 2 + 2, `${small} ms and ${large} ms`);

    const url = servers[1].url;
    await (await fetch(`${url}/replicate`)).arrayBuffer();
    for (let i = 0; i < 100; i++) await (await fetch(`${url}/files/${i}`)).arrayBuffer();
    await getJson(`${url}/status`);
    const rss = servers[1].rss() / 2 ** 20;
    console.log(`1 TiB server: ${rss.toFixed(0)} MiB resident`);
    assert(rss < 400, `${rss} MiB`);
  } finally {
    for (const server of servers) await server.stop();
  }
});

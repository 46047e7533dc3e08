/**
 * Publishes one release after the other at an origin that is killed now and then, and holds it to what
 * it acknowledged.
 *
 * @module
 */

import { assert } from "@std/assert";
import { getJson, run, until, volcastCommand } from "../e2e/harness.ts";
import type { Releases } from "./content.ts";
import type { SoakNode } from "./nodes.ts";

/** Snapshots that stay at the origin. */
const KEPT = 3;

/** See the module. */
export class Publisher {
  /** Releases that were acknowledged. */
  published = 0;
  /** Snapshots that were deleted. */
  deleted = 0;
  /** What was asked for again because the origin went. */
  repeated = 0;
  readonly #origin: SoakNode;
  readonly #releases: Releases;

  constructor(origin: SoakNode, releases: Releases) {
    this.#origin = origin;
    this.#releases = releases;
  }

  /** Publishes the next release. It is there when this returns, whatever happened meanwhile. */
  async next(): Promise<void> {
    this.#releases.change();
    const name = `r${this.#releases.newest}`;
    for (let attempt = 1;; attempt++) {
      await until("the origin lives", () => this.#origin.isLive);
      const { incarnation } = this.#origin;
      const publish = ["publish", this.#origin.url, this.#releases.tree, "--as", name];
      const { code, stdout, stderr } = await run([...volcastCommand(), ...publish]);
      if (code === 0) break;
      // It was done, and only the answer lost.
      if (attempt > 1 && stderr.includes("there is a snapshot of this name")) break;
      assert(
        incarnation !== this.#origin.incarnation || !this.#origin.isLive,
        `publish of ${name} at an origin that lives: ${code}\n${stdout}${stderr}`,
      );
      this.repeated++;
    }
    this.published++;
  }

  /** Deletes old snapshots that no site holds. */
  async deleteOld(): Promise<void> {
    if (!this.#origin.isLive) return;
    const old = (await this.#names()).slice(0, -KEPT);
    for (const name of old) {
      const { code } = await run([
        ...volcastCommand(),
        ...["snapshot", "delete", this.#origin.url, name],
      ]);
      if (code === 0) this.deleted++;
    }
  }

  /** What was acknowledged before the origin was killed is there again. @throws Where it is not. */
  async assertNothingLost(): Promise<void> {
    const newest = (await this.#names()).at(-1);
    const least = this.published;
    assert(
      newest !== undefined && Number(newest.slice(1)) >= least,
      `r${least} was acknowledged, and ${newest} is the newest`,
    );
  }

  /** Names of the origin's snapshots, oldest first. */
  async #names(): Promise<string[]> {
    const { snapshots } = await getJson(`${this.#origin.url}/snapshots`) as {
      snapshots: { name: string }[];
    };
    return snapshots.map(({ name }) => name)
      .sort((a, b) => Number(a.slice(1)) - Number(b.slice(1)));
  }
}

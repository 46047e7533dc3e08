/**
 * restic, borg, casync and ostree.
 *
 * @module
 */

import { must } from "../process.ts";
import { pathOf } from "../programs.ts";
import { inside, type ReplicaKind } from "./replica.ts";

const NOTHING_TO_END = { [Symbol.asyncDispose]: () => Promise.resolve() };

/** A repository that takes backups. */
export const restic: ReplicaKind = {
  name: "restic",
  programs: ["restic"],
  async open(directory) {
    const env = {
      RESTIC_PASSWORD: "bench",
      RESTIC_REPOSITORY: `${directory}/restic`,
      RESTIC_CACHE_DIR: `${directory}/restic-cache`,
    };
    const program = pathOf("restic")!;
    await must([program, "init"], { env });
    return {
      ...NOTHING_TO_END,
      async update(_, source) {
        await must(inside(source, [program, "backup", "--quiet", "."]), { env });
      },
      async restore(target) {
        await must([program, "restore", "latest", "--target", target], { env });
        return target;
      },
    };
  },
};

/** A repository that takes archives. */
export const borg: ReplicaKind = {
  name: "borg",
  programs: ["borg"],
  async open(directory) {
    const env = {
      BORG_REPO: `${directory}/borg`,
      BORG_BASE_DIR: `${directory}/borg-base`,
      BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: "yes",
    };
    const program = pathOf("borg")!;
    await must([program, "init", "--encryption", "none"], { env });
    let number = 0;
    return {
      ...NOTHING_TO_END,
      async update(_, source) {
        await must(inside(source, [program, "create", `::${++number}`, "."]), { env });
      },
      async restore(target) {
        await Deno.mkdir(target);
        await must(inside(target, [program, "extract", `::${number}`]), { env });
        return target;
      },
    };
  },
};

/** A store of chunks, and an index of each release. */
export const casync: ReplicaKind = {
  name: "casync",
  programs: ["casync"],
  open(directory) {
    const program = pathOf("casync")!;
    const store = `--store=${directory}/casync.castr`;
    const index = `${directory}/tree.caidx`;
    return Promise.resolve({
      ...NOTHING_TO_END,
      update: async (_, source) => void await must([program, "make", store, index, source]),
      async restore(target) {
        await must([program, "extract", store, index, target]);
        return target;
      },
    });
  },
};

/** A repository that pulls commits from another one on this host. */
export const ostree: ReplicaKind = {
  name: "ostree pull-local",
  programs: ["ostree"],
  async open(directory, sources) {
    const program = pathOf("ostree")!;
    const origin = `${directory}/ostree-origin`;
    const site = `${directory}/ostree-site`;
    await must([program, "init", `--repo=${origin}`, "--mode=archive"]);
    // Repositories of one kind would share files in the place of copying them.
    await must([program, "init", `--repo=${site}`, "--mode=bare-user-only"]);
    for (const [branch, tree] of Object.entries(sources)) {
      const from = ["--no-xattrs", "--canonical-permissions", `--tree=dir=${tree}`];
      await must([program, "commit", `--repo=${origin}`, `--branch=${branch}`, ...from]);
    }
    let current = "";
    return {
      ...NOTHING_TO_END,
      // It keeps neither times nor owners.
      extent: "content",
      async update(release) {
        current = release;
        await must([program, "pull-local", `--repo=${site}`, origin, release]);
      },
      async restore(target) {
        await must([program, "checkout", `--repo=${site}`, "--user-mode", current, target]);
        return target;
      },
    };
  },
};

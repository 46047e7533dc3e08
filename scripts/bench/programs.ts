/**
 * The programs that volcast is held against. The bench installs nothing: it takes what is there.
 *
 * @module
 */

/** Debian's packages of the programs, and what is left out without them. */
const PACKAGES = {
  rsync: "rsync",
  curl: "curl",
  nginx: "nginx-light",
  caddy: "caddy",
  wrk: "wrk",
  restic: "restic",
  borg: "borgbackup",
  casync: "casync",
  ostree: "ostree",
  "mkfs.btrfs": "btrfs-progs",
  npm: "npm",
  gnuplot: "gnuplot-nox",
} as const;

/** A program of another project. */
export type Program = keyof typeof PACKAGES;

/** Directories besides those of PATH: administrators' programs. */
const MORE_PATHS = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/** Where a program lies; `undefined` where it is not installed. */
export function pathOf(program: Program): string | undefined {
  const paths = (Deno.env.get("PATH") ?? "").split(":").concat(MORE_PATHS);
  return paths.map((path) => `${path}/${program}`).find((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  });
}

/** Those of the programs that are not installed. */
export function missing(programs: readonly Program[]): Program[] {
  return programs.filter((program) => pathOf(program) === undefined);
}

/** Why something is left out without programs. */
export function whyMissing(programs: readonly Program[]): string {
  return `${programs.join(" and ")} ${programs.length === 1 ? "is" : "are"} not installed`;
}

/** How to install all that is missing; `undefined` when nothing is. */
export function installLine(): string | undefined {
  const absent = missing(Object.keys(PACKAGES) as Program[]);
  if (absent.length === 0) return undefined;
  return `apt-get install --no-install-recommends ${absent.map((key) => PACKAGES[key]).join(" ")}`;
}

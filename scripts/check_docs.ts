/**
 * The doc lint of the rooms' public faces: everything that a `mod.ts` exports has a doc comment.
 *
 * Left out are two rules of `deno doc --lint` (types of packages count as private there, and the types
 * of layout tables are inferred from the tables, which is what makes table and codec one thing), and
 * fields and constructors: `uid: number` needs no sentence, and where a unit does, review sees to it.
 *
 * @module
 */

const LEFT_OUT = ["private-type-ref", "missing-explicit-type"];

/** Fields, and constructors. */
const NEEDS_NONE = /^\s+(((readonly|override) )*\w+\??(:| =)|constructor\()/;

/** The findings in the output of `deno doc --lint`, as `file:line: message`. */
export function findings(output: string): string[] {
  const found: string[] = [];
  let message = "";
  for (const line of output.split("\n")) {
    const head = /^error\[([a-z-]+)\]: (.*)$/.exec(line);
    if (head !== null) message = LEFT_OUT.includes(head[1]) ? "" : head[2];
    const place = /^\s*--> (\S+?):(\d+):\d+/.exec(line);
    if (place === null || message === "") continue;
    found.push(`${place[1].replace(/^.*\/(?=src\/)/, "")}:${place[2]}: ${message}`);
    message = "";
  }
  return found;
}

if (import.meta.main) {
  const faces: string[] = [];
  for (const room of Deno.readDirSync("src")) {
    if (!room.isDirectory || room.name === "cli") continue;
    faces.push(`src/${room.name}/mod.ts`);
  }
  const { stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["doc", "--lint", ...faces.sort()],
    env: { NO_COLOR: "1" },
  }).output();
  const found = findings(new TextDecoder().decode(stderr)).filter((finding) => {
    const [path, line] = finding.split(":");
    return !NEEDS_NONE.test(Deno.readTextFileSync(path).split("\n")[Number(line) - 1]);
  });
  for (const finding of found) console.error(finding);
  console.error(`Doc comments checked in ${faces.length} rooms: ${found.length} missing`);
  Deno.exit(found.length === 0 ? 0 : 1);
}

import { assertEquals, assertThrows } from "@std/assert";
import { type Superblock, zoneOf } from "../../src/format/mod.ts";
import { afterStep, type Step } from "../../src/volume/mod.ts";
import { test } from "../helpers/strict.ts";

const IDENTITY = { volumeId: "0123456789abcdef0123456789abcdef", zone: zoneOf(1000) };
const AT = { cp: 7, root: { vbn: 500, crc: 1 } } as const;
const REMAP = { head: { vbn: 700, crc: 3 }, count: 9 } as const;
const NAMED = { ...AT, name: "june5", time: 5n } as const;

type State = "none" | "origin" | "replica" | "branched" | "staged";

function states(): Record<State, Superblock | undefined> {
  const origin = afterStep(IDENTITY, undefined, { kind: "commit", ...AT });
  const replica = afterStep(IDENTITY, undefined, { kind: "apply", ...NAMED });
  const local = { cp: 9, root: { vbn: 600, crc: 2 } };
  return {
    none: undefined,
    origin,
    replica,
    branched: afterStep(IDENTITY, replica, { kind: "branch", ...local }),
    staged: afterStep(IDENTITY, replica, { kind: "apply", ...NAMED, remap: REMAP }),
  };
}

test("each step is possible from the states that the module names, and from no other", () => {
  const ways: Record<Step["kind"], string[]> = {
    "commit": ["none", "origin"],
    "apply": ["none", "replica"],
    "branch": ["replica", "branched"],
    "flush": ["branched"],
    "promote": ["replica", "branched"],
    "go-back": ["origin", "replica", "branched"],
    "settle": ["staged"],
  };
  for (const [kind, from] of Object.entries(ways)) {
    for (const [name, before] of Object.entries(states())) {
      const step = { kind, ...NAMED } as Step;
      if (!from.includes(name)) {
        assertThrows(
          () => afterStep(IDENTITY, before, step),
          Error,
          "Assertion",
          `${name} ${kind}`,
        );
        continue;
      }
      assertEquals(afterStep(IDENTITY, before, step).sequence, (before?.sequence ?? 0) + 1);
    }
  }
});

test("steps say what they should of role, root, branch and name", () => {
  const { origin, replica, branched } = states();
  const of = (before: Superblock | undefined, step: Step) => {
    const { role, cp, branch, applied } = afterStep(IDENTITY, before, step);
    return [role, cp, branch?.cp, applied?.name];
  };
  assertEquals(of(branched, { kind: "flush" }), ["replica", 7, undefined, "june5"]);
  assertEquals(of(replica, { kind: "branch", cp: 8, root: AT.root }), ["replica", 7, 8, "june5"]);
  const promoted = ["origin", 10, undefined, undefined];
  assertEquals(of(branched, { kind: "promote", cp: 10, root: AT.root }), promoted);
  const back = { ...NAMED, kind: "go-back", cp: 3, name: "june3" } as const;
  for (const before of [origin, replica, branched]) {
    assertEquals(of(before, back), ["replica", 3, undefined, "june3"]);
  }
  assertThrows(() => afterStep(IDENTITY, replica, { ...back, cp: 8 }), Error, "goes back");
  const { staged } = states();
  assertEquals(staged?.remap, REMAP);
  assertEquals(afterStep(IDENTITY, staged, { kind: "settle" }), { ...replica, sequence: 3 });
});

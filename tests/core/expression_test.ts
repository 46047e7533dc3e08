import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  BitPlane,
  evaluate,
  excluded,
  type Expression,
  formatExpression,
  MAX_OPERANDS,
  operandsOfSum,
  parseExpression,
  type Plane,
  renamed,
  runsOf,
  signsOf,
  VolcastError,
} from "../../src/core/mod.ts";
import { test } from "../helpers/strict.ts";

/** An expression as text with every parenthesis. */
function show(expression: Expression): string {
  return expression.kind === "name"
    ? expression.name
    : `(${show(expression.left)} ${expression.kind} ${show(expression.right)})`;
}

test("parseExpression groups from the left, with one precedence for all operators", () => {
  const cases: [text: string, parsed: string][] = [
    ["june5", "june5"],
    ["june5 + june4 - june3", "((june5 + june4) - june3)"],
    ["a - b - c", "((a - b) - c)"],
    ["a + b & c", "((a + b) & c)"],
    ["a & b + c - d", "(((a & b) + c) - d)"],
    ["a - (b - c)", "(a - (b - c))"],
    ["(a + b) - (c & (d + e))", "((a + b) - (c & (d + e)))"],
    ["((a))", "a"],
    ["  a\t+\nb  ", "(a + b)"],
  ];
  for (const [text, parsed] of cases) assertEquals(show(parseExpression(text)), parsed, text);
});

test("parseExpression keeps dashes inside of names", () => {
  const cases: [text: string, parsed: string][] = [
    ["june-5", "june-5"],
    ["june-5 - june-3", "(june-5 - june-3)"],
    ["2026-11-23 -2026-11-22", "(2026-11-23 - 2026-11-22)"],
    ["2026-11-23- 2026-11-22", "(2026-11-23 - 2026-11-22)"],
    ["a+b", "a+b"],
    ["a&b & c", "(a&b & c)"],
    ["(a)-(b)", "(a - b)"],
    ["(a-b)-c", "(a-b - c)"],
    ["12-00abcdef - 3-00000001", "(12-00abcdef - 3-00000001)"],
    ["größe + 日本", "(größe + 日本)"],
  ];
  for (const [text, parsed] of cases) assertEquals(show(parseExpression(text)), parsed, text);
});

test("parseExpression refuses what is no expression, and says where", () => {
  const cases: [text: string, reason: string][] = [
    ["", "ends where a snapshot's name should follow"],
    ["   ", "ends where a snapshot's name should follow"],
    ["a +", "ends where a snapshot's name should follow"],
    ["+ a", "'+' stands where a name should"],
    ["a + + b", "'+' stands where a name should"],
    ["a - & b", "'&' stands where a name should"],
    ["(a", "a parenthesis is not closed"],
    ["(a + b", "a parenthesis is not closed"],
    ["a)", "')' follows where an operator should"],
    ["()", "')' stands where a name should"],
    ["a b", "'b' follows where an operator should"],
    ["a (b)", "'(' follows where an operator should"],
  ];
  for (const [text, reason] of cases) {
    const error = assertThrows(() => parseExpression(text), VolcastError, reason);
    assertEquals(error.kind, "usage");
    assertEquals(error.message.includes(`'${text}'`), true);
  }
});

function bitsIn(plane: Plane): number[] {
  return [...runsOf(plane)].flatMap(({ start, count }) =>
    Array.from({ length: count }, (_, i) => start + i)
  );
}

const names = ["a", "b-1", "c"] as const;
const expressions = fc.letrec<{ tree: Expression }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 5 },
    fc.constantFrom(...names).map((name): Expression => ({ kind: "name", name })),
    fc.record({
      kind: fc.constantFrom("+" as const, "-" as const, "&" as const),
      left: tie("tree"),
      right: tie("tree"),
    }),
  ),
})).tree;

test("parseExpression reads back what was written, and evaluate follows sets", () => {
  const sets: Record<string, Set<number>> = {
    "a": new Set([1, 2, 3, 40_000]),
    "b-1": new Set([2, 3, 4]),
    "c": new Set([3, 4, 5, 40_000]),
  };
  const planeOf = (name: string) =>
    BitPlane.ofRuns(2, [...sets[name]].map((start) => ({ start, count: 1 })));
  const model = (expression: Expression): Set<number> => {
    if (expression.kind === "name") return sets[expression.name];
    const [left, right] = [model(expression.left), model(expression.right)];
    if (expression.kind === "+") return left.union(right);
    return expression.kind === "-" ? left.difference(right) : left.intersection(right);
  };
  fc.assert(
    fc.property(expressions, (expression) => {
      assertEquals(parseExpression(show(expression)), expression);
      assertEquals(
        bitsIn(evaluate(expression, planeOf)),
        [...model(expression)].sort((a, b) => a - b),
      );
    }),
    { numRuns: 300, seed: 7, verbose: 1 },
  );
});

test("formatExpression writes the notation with no parenthesis too many", () => {
  for (
    const text of ["a", "a + b - c", "a - (b - c)", "(a)", "((a + b)) - (c & (d))", "a & b + c"]
  ) {
    const written = formatExpression(parseExpression(text));
    assertEquals(parseExpression(written), parseExpression(text));
    assertEquals(written.includes("("), /- \(b|\(c &/.test(text), written);
  }
  fc.assert(
    fc.property(expressions, (expression) => {
      assertEquals(parseExpression(formatExpression(expression)), expression);
    }),
    { numRuns: 300, seed: 8 },
  );
});

test("renamed, operandsOfSum and signsOf see every name", () => {
  const expression = parseExpression("a + b - (c - (d + a)) & e");
  assertEquals(
    formatExpression(renamed(expression, (name) => name.toUpperCase())),
    "A + B - (C - (D + A)) & E",
  );
  const { positive, negative } = signsOf(expression);
  assertEquals([[...positive].sort(), [...negative]], [["a", "b", "d", "e"], ["c"]]);
  assertEquals([...signsOf(parseExpression("a - a")).negative], ["a"]);
  const operands = (text: string) => operandsOfSum(parseExpression(text)).map(formatExpression);
  assertEquals(operands("a + b + c"), ["a", "b", "c"]);
  assertEquals(operands("a + (b + c) + d"), ["a", "b + c", "d"]);
  assertEquals(operands("a - b"), ["a - b"]);
});

test("a block of an expression is in a positive name, and none below an excluded one is", () => {
  // A small world: blocks point at blocks with higher numbers, a snapshot has all below its root.
  const worlds = fc.record({
    children: fc.array(fc.uniqueArray(fc.nat(30), { minLength: 1, maxLength: 3 }), {
      minLength: 31,
      maxLength: 31,
    }),
    roots: fc.tuple(fc.nat(6), fc.nat(6), fc.nat(6)),
  });
  let excludedCount = 0;
  fc.assert(
    fc.property(worlds, expressions, ({ children, roots }, expression) => {
      const below = (block: number): number[] => [
        block,
        ...children[block].filter((child) => child > block).flatMap(below),
      ];
      const sets = Object.fromEntries(names.map((name, i) => [name, new Set(below(roots[i]))]));
      const planeOf = (name: string) =>
        BitPlane.ofRuns(2, [...sets[name]].map((start) => ({ start, count: 1 })));
      const blocks = new Set(bitsIn(evaluate(expression, planeOf)));
      for (const block of blocks) {
        assertEquals([...signsOf(expression).positive].some((name) => sets[name].has(block)), true);
      }
      const plane = excluded(expression, planeOf);
      for (const block of plane === undefined ? [] : bitsIn(plane)) {
        excludedCount++;
        for (const other of below(block)) assertEquals(blocks.has(other), false, `${block}`);
      }
    }),
    { numRuns: 1000, seed: 9 },
  );
  assertEquals(excludedCount > 500, true, `${excludedCount} blocks were excluded`);
  // Of an increment, all of the base.
  const planeOf = (name: string) => BitPlane.ofRuns(2, [{ start: name === "c" ? 7 : 3, count: 4 }]);
  assertEquals(bitsIn(excluded(parseExpression("a + b - c"), planeOf)!), [7, 8, 9, 10]);
});

test("parseExpression takes a thousand names and refuses more, and nests no deeper", () => {
  const sum = (count: number) => Array.from({ length: count }, (_, i) => `n${i}`).join(" - ");
  assertEquals(formatExpression(parseExpression(sum(MAX_OPERANDS))), sum(MAX_OPERANDS));
  const many = assertThrows(() => parseExpression(sum(MAX_OPERANDS + 1)), VolcastError);
  assertEquals([many.kind, many.message.length < 400], ["usage", true]);
  const deep = (count: number) => `${"(".repeat(count)}a${")".repeat(count)}`;
  assertEquals(parseExpression(deep(MAX_OPERANDS)), { kind: "name", name: "a" });
  assertThrows(() => parseExpression(deep(30_000)), VolcastError, "parentheses are open");
});

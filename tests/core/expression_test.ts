import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  BitPlane,
  evaluate,
  type Expression,
  parseExpression,
  runsOf,
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
      const bits = [...runsOf(evaluate(expression, planeOf))].flatMap(({ start, count }) =>
        Array.from({ length: count }, (_, i) => start + i)
      );
      assertEquals(bits, [...model(expression)].sort((a, b) => a - b));
    }),
    { numRuns: 300, seed: 7, verbose: 1 },
  );
});

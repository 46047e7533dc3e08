/**
 * The notation of storage images: `June5 + June4 - June3`, also `&` and parentheses.
 *
 * `+`, `-` and `&` have one precedence and group from the left, as in the source (WO 00/07104,
 * "storage images"), so `a + b - c` is `(a + b) - c`. A name is any run of characters other than
 * blanks, operators with a blank beside them, and parentheses; since snapshot names may hold `-`,
 * an operator needs a blank on at least one side: `june-5 - june-3`.
 *
 * @module
 */

import { VolcastError } from "./errors.ts";
import { difference, intersection, type Plane, sum } from "./plane.ts";

/** Most names in an expression. A copy that keeps history may have more tops: it needs no expression. */
export const MAX_OPERANDS = 1000;

/** A parsed expression. */
export type Expression =
  | { readonly kind: "name"; readonly name: string }
  | {
    readonly kind: "+" | "-" | "&";
    readonly left: Expression;
    readonly right: Expression;
  };

/**
 * Parses the notation.
 *
 * @throws {VolcastError} `usage`, naming the text and the place.
 */
export function parseExpression(text: string): Expression {
  const tokens = tokenize(text);
  let position = 0;
  let depth = 0;

  function fail(what: string): never {
    const shown = text.length > 200 ? `${text.slice(0, 200)}...` : text;
    throw new VolcastError(
      "usage",
      `Cannot read the expression '${shown}': ${what}`,
      "Write for example: june5 + june4 - june3",
    );
  }
  function operand(): Expression {
    const token = tokens[position++];
    if (token === undefined) fail("it ends where a snapshot's name should follow");
    if (token === "(") {
      if (++depth > MAX_OPERANDS) fail(`more than ${MAX_OPERANDS} parentheses are open`);
      const inner = expression();
      if (tokens[position++] !== ")") fail("a parenthesis is not closed");
      depth--;
      return inner;
    }
    if (isOperator(token) || token === ")") fail(`'${token}' stands where a name should`);
    return { kind: "name", name: token };
  }
  function expression(): Expression {
    let left = operand();
    for (;;) {
      const token = tokens[position];
      if (token === undefined || !isOperator(token)) return left;
      position++;
      left = { kind: token, left, right: operand() };
    }
  }

  const operands = tokens.filter((token) => !isOperator(token) && !/[()]/.test(token)).length;
  if (operands > MAX_OPERANDS) fail(`it has ${operands} names, the limit is ${MAX_OPERANDS}`);
  const result = expression();
  if (position < tokens.length) fail(`'${tokens[position]}' follows where an operator should`);
  return result;
}

/** The notation of an expression, with parentheses only where they are needed. */
export function formatExpression(expression: Expression): string {
  if (expression.kind === "name") return expression.name;
  const { kind, left, right } = expression;
  const last = formatExpression(right);
  return `${formatExpression(left)} ${kind} ${right.kind === "name" ? last : `(${last})`}`;
}

/** The same expression with other names. */
export function renamed(expression: Expression, nameOf: (name: string) => string): Expression {
  if (expression.kind === "name") return { kind: "name", name: nameOf(expression.name) };
  const { kind, left, right } = expression;
  return { kind, left: renamed(left, nameOf), right: renamed(right, nameOf) };
}

/**
 * The names of an expression by their sign: a name that stands behind an odd number of `-` is
 * negative. A block of the expression is in the plane of at least one positive name. A name may have
 * both signs.
 */
export function signsOf(expression: Expression): { positive: Set<string>; negative: Set<string> } {
  const positive = new Set<string>();
  const negative = new Set<string>();
  const look = (part: Expression, isNegative: boolean): void => {
    if (part.kind === "name") {
      (isNegative ? negative : positive).add(part.name);
      return;
    }
    look(part.left, isNegative);
    look(part.right, part.kind === "-" ? !isNegative : isNegative);
  };
  look(expression, false);
  return { positive, negative };
}

/** The operands of `a + b + c`; the expression itself where it is no sum. */
export function operandsOfSum(expression: Expression): Expression[] {
  const operands: Expression[] = [];
  let rest = expression;
  for (; rest.kind === "+"; rest = rest.left) operands.unshift(rest.right);
  return [rest, ...operands];
}

/**
 * A set of blocks none of which is in the expression, and nothing below them either, known from its
 * form alone: of `a + b - c` the plane of `c`. A plane of a snapshot is closed downwards (who has a
 * block has all that the block points at), so are sums and intersections of such planes; differences
 * are not. `undefined` where the form tells nothing.
 */
export function excluded(
  expression: Expression,
  planeOf: (name: string) => Plane,
): Plane | undefined {
  if (expression.kind === "name") return undefined;
  const left = excluded(expression.left, planeOf);
  if (expression.kind === "-") return either(left, closedPart(expression.right, planeOf));
  const right = excluded(expression.right, planeOf);
  return expression.kind === "&" ? either(left, right) : both(left, right);
}

/** A part of an expression's plane that is closed downwards. */
function closedPart(
  expression: Expression,
  planeOf: (name: string) => Plane,
): Plane | undefined {
  if (expression.kind === "name") return planeOf(expression.name);
  if (expression.kind === "-") return undefined;
  const left = closedPart(expression.left, planeOf);
  const right = closedPart(expression.right, planeOf);
  return expression.kind === "+" ? either(left, right) : both(left, right);
}

function either(a: Plane | undefined, b: Plane | undefined): Plane | undefined {
  return a === undefined || b === undefined ? a ?? b : sum(a, b);
}

function both(a: Plane | undefined, b: Plane | undefined): Plane | undefined {
  return a === undefined || b === undefined ? undefined : intersection(a, b);
}

/** The plane of an expression, pages computed when read; `planeOf` gives the plane of a name. */
export function evaluate(expression: Expression, planeOf: (name: string) => Plane): Plane {
  if (expression.kind === "name") return planeOf(expression.name);
  if (expression.kind === "+") {
    // At one go: a copy that keeps history may be the sum of thousands.
    return sum(...operandsOfSum(expression).map((operand) => evaluate(operand, planeOf)));
  }
  const left = evaluate(expression.left, planeOf);
  const right = evaluate(expression.right, planeOf);
  switch (expression.kind) {
    case "-":
      return difference(left, right);
    case "&":
      return intersection(left, right);
  }
}

function isOperator(token: string): token is "+" | "-" | "&" {
  return token === "+" || token === "-" || token === "&";
}

function tokenize(text: string): string[] {
  // A blank or a parenthesis ends a name; an operator counts where a blank, a parenthesis or an end
  // stands on one side of it, so that 'june-5' is a name.
  const tokens: string[] = [];
  let name = "";
  const flush = () => {
    if (name !== "") tokens.push(name);
    name = "";
  };
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (/\s/.test(char)) flush();
    else if (char === "(" || char === ")") {
      flush();
      tokens.push(char);
    } else if (isOperator(char) && (loose(text[i - 1]) || loose(text[i + 1]))) {
      flush();
      tokens.push(char);
    } else name += char;
  }
  flush();
  return tokens;
}

function loose(char: string | undefined): boolean {
  return char === undefined || /[\s()]/.test(char);
}

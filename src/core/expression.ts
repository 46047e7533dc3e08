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

  function fail(what: string): never {
    throw new VolcastError(
      "usage",
      `Cannot read the expression '${text}': ${what}`,
      "Write for example: june5 + june4 - june3",
    );
  }
  function operand(): Expression {
    const token = tokens[position++];
    if (token === undefined) fail("it ends where a snapshot's name should follow");
    if (token === "(") {
      const inner = expression();
      if (tokens[position++] !== ")") fail("a parenthesis is not closed");
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

  const result = expression();
  if (position < tokens.length) fail(`'${tokens[position]}' follows where an operator should`);
  return result;
}

/** The plane of an expression, pages computed when read; `planeOf` gives the plane of a name. */
export function evaluate(expression: Expression, planeOf: (name: string) => Plane): Plane {
  if (expression.kind === "name") return planeOf(expression.name);
  const left = evaluate(expression.left, planeOf);
  const right = evaluate(expression.right, planeOf);
  switch (expression.kind) {
    case "+":
      return sum(left, right);
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

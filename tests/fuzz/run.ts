/**
 * Running inputs of a target in this process, and making those that fail small.
 *
 * @module
 */

import { Random } from "../helpers/random.ts";
import type { Input, Prepared, Target } from "./target.ts";
import { Watch } from "./watch.ts";

/** An input that showed something wrong. */
export interface Found {
  readonly target: string;
  readonly seed: number;
  /** Number of the input below the seed; absent for one of the corpus. */
  readonly number?: number;
  readonly problems: readonly string[];
  /** The smallest input that shows the first problem. */
  readonly input: Input;
}

/** The random numbers of one input. */
export function randomOf(target: string, seed: number, index: number): Random {
  let mixed = seed >>> 0;
  for (const letter of `${target}:${index}`) {
    mixed = Math.imul(mixed ^ letter.charCodeAt(0), 0x01000193) >>> 0;
  }
  return new Random(mixed ^ (mixed >>> 15));
}

/** Whom arrays are counted for. */
let counting: Watch | undefined;

/**
 * Counts every array of bytes or words that code makes from now on: in a process of its own only.
 * What the runtime makes by itself is not seen.
 */
export function countArrays(): void {
  const scope = globalThis as unknown as Record<string, unknown>;
  const handler = (bytes: number): ProxyHandler<new (...args: unknown[]) => object> => ({
    construct(made, args, target): object {
      const [first] = args;
      if (typeof first === "number" && counting !== undefined) counting.allocate(first * bytes);
      return Reflect.construct(made, args, target);
    },
  });
  const kinds: [string, number][] = [
    ["Uint8Array", 1],
    ["Uint32Array", 4],
    ["BigUint64Array", 8],
    ["ArrayBuffer", 1],
  ];
  for (const [name, bytes] of kinds) {
    scope[name] = new Proxy(scope[name] as new (...args: unknown[]) => object, handler(bytes));
  }
}

/** What was thrown where nobody waited for it, while an input was running. */
const stray: unknown[] = [];

/** Takes what is thrown where nobody waits for it: in a process of its own only. */
export function catchStray(): void {
  addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    stray.push(event.reason);
  });
  addEventListener("error", (event) => {
    event.preventDefault();
    stray.push(event.error);
  });
}

/** Runs one input. @returns What watched it. */
export async function runInput(target: Target, prepared: Prepared, input: Input): Promise<Watch> {
  const watch = new Watch(target.limits);
  counting = watch;
  try {
    await prepared.run(input, watch);
    // A rejection that nobody takes is told a turn later.
    await new Promise((resolve) => setTimeout(resolve, 0));
  } catch (error) {
    watch.refused("the target", error);
    if (watch.problems.length === 0) watch.problem(`Refused where nothing may be: ${error}`);
  } finally {
    counting = undefined;
  }
  for (const error of stray.splice(0)) {
    watch.problem(`Thrown where nobody waited: ${error instanceof Error ? error.stack : error}`);
  }
  return watch;
}

/** What a problem is about, without the numbers in it. */
function kindOf(problem: string): string {
  return problem.replace(/0x[0-9a-f]+|\d+/g, "#").slice(0, 300);
}

/** The fewest steps that show the same problem. */
export async function minimized(
  target: Target,
  prepared: Prepared,
  input: Input,
  problem: string,
): Promise<Input> {
  let smallest = input;
  for (let i = 0; i < smallest.length;) {
    const without = smallest.filter((_, index) => index !== i);
    const { problems } = await runInput(target, prepared, without);
    if (problems.some((one) => kindOf(one) === kindOf(problem))) smallest = without;
    else i++;
  }
  return smallest;
}

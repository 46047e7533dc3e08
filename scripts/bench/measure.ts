/**
 * Measuring in turns, A B A B, so that what else the machine does hits all alike.
 *
 * @module
 */

/** Somebody who does what is measured. */
export interface Contestant {
  readonly name: string;
  /** Before each turn, not measured. */
  prepare?(): void | Promise<void>;
  /** The work. @returns Its figure; without one, the seconds that it took. */
  run(): void | number | Promise<void | number>;
  /** After each turn, not measured. @throws {Error} when the work was not done. */
  check(): void | Promise<void>;
  /** Turns, if fewer than the others take. */
  readonly turns?: number;
}

/** Figures by the name of who did it. */
export type Figures = ReadonlyMap<string, readonly number[]>;

/**
 * Lets all take turns.
 * @throws {Error} when somebody fails, or what was done is not what should have been.
 */
export async function inTurns(
  turns: number,
  contestants: readonly Contestant[],
): Promise<Figures> {
  const figures = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
  for (let turn = 0; turn < turns; turn++) {
    for (const contestant of contestants) {
      if (turn >= (contestant.turns ?? turns)) continue;
      await contestant.prepare?.();
      const begin = performance.now();
      const figure = await contestant.run();
      const seconds = (performance.now() - begin) / 1000;
      await named(contestant.name, () => contestant.check());
      figures.get(contestant.name)!.push(figure ?? seconds);
    }
  }
  return figures;
}

async function named(name: string, check: () => void | Promise<void>): Promise<void> {
  try {
    await check();
  } catch (error) {
    const reason = error instanceof Error ? error.message : error;
    throw new Error(`Cannot count what ${name} did: ${reason}`, { cause: error });
  }
}

/** The one in the middle; of an even number the mean of the two there. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error("Cannot take the median: there are no figures");
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted.length - 1 >> 1, sorted.length >> 1];
  return (sorted[low] + sorted[high]) / 2;
}

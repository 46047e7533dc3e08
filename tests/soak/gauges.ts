/**
 * What processes hold: memory and descriptors must not grow with time.
 *
 * @module
 */

import type { SoakNode } from "./nodes.ts";

/** A process is judged that lived this long at least, ms. */
const JUDGED_MS = 120_000;
/** Growth that is none: what a heap and its collector move by. */
const SLACK_BYTES = 32 * 2 ** 20;
const SLACK_RATIO = 1.2;
const SLACK_DESCRIPTORS = 8;

interface Sample {
  readonly at: number;
  readonly bytes: number;
  readonly descriptors: number;
}

/** What a process held, at the median of the second and of the last quarter of its life. */
export interface Growth {
  readonly process: string;
  readonly seconds: number;
  readonly bytes: readonly [number, number];
  readonly descriptors: readonly [number, number];
  /** Whether it grew; `undefined` where it did not live long enough to tell. */
  readonly hasGrown: boolean | undefined;
}

/** Looks at the processes of a hierarchy now and then. */
export class Gauges {
  readonly #nodes: readonly SoakNode[];
  readonly #samples = new Map<string, Sample[]>();
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(nodes: readonly SoakNode[], everyMs = 1000) {
    this.#nodes = nodes;
    this.#timer = setInterval(() => this.#look(), everyMs);
  }

  /** Ends looking. */
  end(): void {
    clearInterval(this.#timer);
  }

  /** What each process held, those that lived longest first. */
  growths(): Growth[] {
    return [...this.#samples].filter(([, samples]) => samples.length >= 8).map(growthOf)
      .sort((a, b) => b.seconds - a.seconds);
  }

  #look(): void {
    for (const node of this.#nodes) {
      if (!node.isLive) continue;
      const process = `${node.name} ${node.incarnation}`;
      let samples = this.#samples.get(process);
      if (samples === undefined) this.#samples.set(process, samples = []);
      try {
        const descriptors = [...Deno.readDirSync(`/proc/${node.server.process.pid}/fd`)].length;
        samples.push({ at: performance.now(), bytes: node.server.rss(), descriptors });
      } catch {
        // It has just ended.
      }
    }
  }
}

function growthOf([process, samples]: [string, Sample[]]): Growth {
  const quarter = Math.floor(samples.length / 4);
  const [early, late] = [samples.slice(quarter, 2 * quarter), samples.slice(-quarter)];
  const pair = (of: (sample: Sample) => number): [number, number] => [
    median(early.map(of)),
    median(late.map(of)),
  ];
  const bytes = pair((sample) => sample.bytes);
  const descriptors = pair((sample) => sample.descriptors);
  const ms = samples.at(-1)!.at - samples[0].at;
  const hasGrown = bytes[1] > bytes[0] * SLACK_RATIO + SLACK_BYTES ||
    descriptors[1] > descriptors[0] + SLACK_DESCRIPTORS;
  return {
    process,
    seconds: Math.round(ms / 1000),
    bytes,
    descriptors,
    hasGrown: ms < JUDGED_MS ? undefined : hasGrown,
  };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

/**
 * What happens at a node, for whoever wants to know.
 *
 * @module
 */

/** An event of a node. */
export type NodeEvent =
  | { readonly type: "master"; readonly snapshot: string; readonly name: string }
  | {
    readonly type: "progress";
    readonly top: string;
    readonly done: number;
    readonly total: number;
  }
  | { readonly type: "pull"; readonly result: string; readonly message: string }
  /** Local changes went because an image came in. */
  | { readonly type: "flush"; readonly files: number; readonly snapshots: readonly string[] }
  /** Blocks were found bad, or healed, or a look at all of them is complete. */
  | {
    readonly type: "scrub";
    readonly result: "bad" | "healed" | "complete";
    readonly message: string;
  }
  /** This node was promoted. */
  | { readonly type: "role"; readonly role: "origin"; readonly epoch: number };

/** Delivers events to listeners; a listener that throws is the listener's problem. */
export class NodeEvents {
  readonly #listeners = new Set<(event: NodeEvent) => void>();

  /** Begins to listen. @returns A function that ends the subscription. */
  subscribe(listener: (event: NodeEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Tells everybody. */
  emit(event: NodeEvent): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(event);
      } catch {
        this.#listeners.delete(listener);
      }
    }
  }
}

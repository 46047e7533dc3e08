/**
 * What every route gets.
 *
 * @module
 */

import type { Context } from "hono";
import type { Node } from "../replication/mod.ts";
import type { Access } from "./access.ts";
import type { Traffic } from "./limits.ts";

/** Settings of the server's routes. */
export interface HttpOptions {
  readonly access: Access;
  /** What is under way, and its limits. */
  readonly traffic: Traffic;
  /** Greatest time since the parent was last heard for `/readyz` to say yes, ms; none by default. */
  readonly maxLagMs?: number;
  /** Version of the program. */
  readonly version: string;
  /**
   * Registers what must end before the server can: answers that would never end by themselves.
   * @returns A function that takes it back.
   */
  readonly onShutdown: (end: () => void) => () => void;
}

/** Types of hono's context here. */
export interface Env {
  Variables: {
    node: Node;
    options: HttpOptions;
    /** The site that the request's token names. */
    tokenSite: string | undefined;
    /** Whether the answer may state which snapshot is here, and whose it is. */
    seesState: boolean;
    /** Looks again whether the request may pass: its token may have been revoked. */
    isStillAdmitted: () => boolean;
  };
}

/** A context of these routes. */
export type RouteContext = Context<Env>;

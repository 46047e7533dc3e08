/**
 * All rows, those of one tree beside each other: its origin is made once.
 *
 * @module
 */

import type { Row } from "../row.ts";
import { exportTree } from "./export.ts";
import { fullPull } from "./full.ts";
import { increment } from "./increment.ts";
import { largeFile } from "./large_file.ts";
import { siteMemory } from "./memory.ts";
import { nothingNew } from "./nothing.ts";
import { choosing } from "./planes.ts";
import { publish } from "./publish.ts";
import { replicas } from "./replicas.ts";
import { serving } from "./serving.ts";
import { servingWhilePulling } from "./serving_while_pulling.ts";
import { sites } from "./sites.ts";
import { slowLink } from "./slow_link.ts";
import { snapshots } from "./snapshots.ts";
import { start } from "./start.ts";
import { wireBytes } from "./wire.ts";

/** In the order of the table. */
export const ROWS: readonly Row[] = [
  fullPull("many"),
  increment("many"),
  nothingNew,
  wireBytes,
  publish,
  exportTree,
  start,
  siteMemory,
  ...replicas,
  fullPull("large"),
  increment("large"),
  largeFile,
  fullPull("database"),
  increment("database"),
  serving,
  servingWhilePulling,
  slowLink,
  sites,
  snapshots,
  choosing,
];

/**
 * Everything that is fuzzed.
 *
 * @module
 */

import type { Target } from "../target.ts";
import { archives } from "./archives.ts";
import { commandLines } from "./command_lines.ts";
import { images } from "./images.ts";
import { media } from "./media.ts";
import { metadata } from "./metadata.ts";
import { parents } from "./parents.ts";
import { requests } from "./requests.ts";
import { settings } from "./settings.ts";

/** All targets, the most dangerous first. */
export const TARGETS: readonly Target[] = [
  metadata,
  images,
  media,
  archives,
  requests,
  parents,
  commandLines,
  settings,
];

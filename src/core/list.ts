/**
 * Lists as text.
 *
 * @module
 */

/** Names with commas between; of many the first and the number of the others. */
export function shortList(names: readonly string[], most = 8): string {
  if (names.length <= most) return names.join(", ");
  return `${names.slice(0, most - 1).join(", ")} and ${names.length - most + 1} more`;
}

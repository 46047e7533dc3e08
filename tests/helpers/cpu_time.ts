/**
 * Time that does not depend on who else is on this machine.
 *
 * @module
 */

import process from "node:process";

/** Processor time that this thread has used, ms: a limit on it holds on a loaded machine too. */
export function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

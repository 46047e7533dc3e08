/**
 * The machine that figures come from, without its name.
 *
 * @module
 */

/** What matters about a machine. */
export interface Machine {
  readonly cores: number;
  readonly processor: string;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly load: number;
  readonly deno: string;
}

/** This machine. */
export function thisMachine(): Machine {
  const info = Deno.readTextFileSync("/proc/cpuinfo");
  return {
    cores: navigator.hardwareConcurrency,
    processor: /^model name\s*:\s*(.+)$/m.exec(info)?.[1] ?? "unknown",
    memoryBytes: Deno.systemMemoryInfo().total,
    kernel: Deno.osRelease().split("-")[0],
    load: Deno.loadavg()[0],
    deno: Deno.version.deno,
  };
}

/** A machine in a line. */
export function machineText(
  { cores, processor, memoryBytes, kernel, load, deno }: Machine,
): string {
  const gib = (memoryBytes / 2 ** 30).toFixed(0);
  const busy = load > cores / 2 ? `; the machine is BUSY (load ${load.toFixed(1)})` : "";
  return `${cores} cores (${processor}), ${gib} GiB of memory, Linux ${kernel}, Deno ${deno}${busy}`;
}

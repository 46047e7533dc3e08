/**
 * Running programs: to their end, or as servers that are ended by their id.
 *
 * @module
 */

import { run } from "../../tests/e2e/harness.ts";
import { sleep } from "../../tests/helpers/until.ts";

/** Longest wait for a server to answer. */
const START_MS = 60_000;

/**
 * Runs a program to its end.
 * @returns What it wrote to standard output.
 * @throws {Error} with what it wrote when its exit code is not among `codes`, 0 by default.
 */
export async function must(
  command: readonly string[],
  options: { env?: Record<string, string>; codes?: readonly number[] } = {},
): Promise<string> {
  const { code, stdout, stderr } = await run(command, options);
  if (!(options.codes ?? [0]).includes(code)) {
    throw new Error(`Cannot run ${command.join(" ")}: exit code ${code}\n${stderr}${stdout}`);
  }
  return stdout;
}

/** A port that nobody listens on now. */
export function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}

/** A server of another project. */
export class Service implements AsyncDisposable {
  readonly port: number;
  readonly #process: Deno.ChildProcess;

  private constructor(process: Deno.ChildProcess, port: number) {
    this.#process = process;
    this.port = port;
  }

  /** Starts one that stays in the foreground, and waits until it takes connections at `port`. */
  static async start(
    command: readonly string[],
    port: number,
    env: Record<string, string> = {},
  ): Promise<Service> {
    const process = new Deno.Command(command[0], {
      args: command.slice(1),
      stdin: "null",
      stdout: "null",
      stderr: "null",
      env,
    }).spawn();
    const begin = Date.now();
    for (;;) {
      const connection = await Deno.connect({ hostname: "127.0.0.1", port })
        .catch(() => undefined);
      if (connection !== undefined) {
        connection.close();
        return new Service(process, port);
      }
      const ended = await Promise.race([process.status, sleep(20)]);
      if (ended !== undefined || Date.now() - begin > START_MS) {
        await end(process);
        throw new Error(`Cannot start ${command.join(" ")}: nothing listens on port ${port}`);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await end(this.#process);
  }
}

async function end(process: Deno.ChildProcess): Promise<void> {
  try {
    process.kill("SIGTERM");
  } catch {
    // It has ended.
  }
  await process.status;
}

/** Most bytes of memory that a process that runs has had resident. */
export function peakMemory(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  if (kib === undefined) throw new Error(`Cannot read the memory of process ${pid}`);
  return Number(kib) * 1024;
}

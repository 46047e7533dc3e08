/**
 * Driving volcast from outside: the compiled binary named by VOLCAST_BIN, or the source.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { sleep } from "../helpers/until.ts";

export { sleep, until } from "../helpers/until.ts";

/** Longest wait for a server to listen, on a loaded machine too. */
const START_MS = 180_000;
const MAIN = new URL("../../main.ts", import.meta.url).pathname;

/** The command that runs volcast. */
export function volcastCommand(): string[] {
  const binary = Deno.env.get("VOLCAST_BIN");
  if (binary !== undefined && binary !== "") return [binary];
  return [
    Deno.execPath(),
    "run",
    "--frozen",
    "--no-check",
    "--allow-read",
    "--allow-write",
    "--allow-net",
    "--allow-env=VOLCAST_TOKEN,VOLCAST_SITE_TOKENS,VOLCAST_TOKEN_FILE,VOLCAST_CA_FILE,NO_COLOR,TERM",
    "--no-prompt",
    MAIN,
  ];
}

/** What a finished command left. */
export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs any program to its end. */
export async function run(
  command: readonly string[],
  options: { stdin?: Uint8Array; env?: Record<string, string> } = {},
): Promise<Result> {
  const child = new Deno.Command(command[0], {
    args: command.slice(1),
    stdin: options.stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1", ...options.env },
  }).spawn();
  if (options.stdin !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(options.stdin);
    await writer.close();
  }
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** Runs volcast and expects an exit code, 0 by default. */
export async function volcast(
  args: readonly string[],
  options: { code?: number; stdin?: Uint8Array; env?: Record<string, string> } = {},
): Promise<Result> {
  const result = await run([...volcastCommand(), ...args], options);
  assertEquals(
    result.code,
    options.code ?? 0,
    `volcast ${args.join(" ")}\n${result.stdout}${result.stderr}`,
  );
  return result;
}

/** Whether a program can be run here. */
export async function has(program: string): Promise<boolean> {
  try {
    await run([program, "--version"]);
    return true;
  } catch {
    return false;
  }
}

/** A server under test. Ended by `stop`, or by `kill` as a power cut would. */
export class Server implements AsyncDisposable {
  readonly url: string;
  readonly wwwUrl: string | undefined;
  readonly process: Deno.ChildProcess;
  readonly #log: { text: string };
  readonly #readers: Promise<unknown>;
  #ended = false;

  private constructor(
    process: Deno.ChildProcess,
    parts: {
      url: string;
      wwwUrl: string | undefined;
      log: { text: string };
      readers: Promise<unknown>;
    },
  ) {
    this.process = process;
    this.url = parts.url;
    this.wwwUrl = parts.wwwUrl;
    this.#log = parts.log;
    this.#readers = parts.readers;
  }

  /** Starts `volcast serve` at a free port, or at the one given. */
  static async start(
    args: readonly string[],
    options: { env?: Record<string, string>; port?: number } = {},
  ): Promise<Server> {
    const command = [
      ...volcastCommand(),
      "serve",
      ...args,
      "--listen",
      `127.0.0.1:${options.port ?? 0}`,
    ];
    const process = new Deno.Command(command[0], {
      args: command.slice(1),
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      env: { NO_COLOR: "1", ...options.env },
    }).spawn();
    const log = { text: "" };
    const out = { text: "" };
    const readers = Promise.all([collect(process.stdout, out), collect(process.stderr, log)]);
    const wanted = args.includes("--www") ? 2 : 1;
    const begin = Date.now();
    for (;;) {
      const urls = [...out.text.matchAll(/ at (https?:\/\/\S+)/g)].map((match) => match[1]);
      if (urls.length >= wanted) {
        return new Server(process, { url: urls[0], wwwUrl: urls[1], log, readers });
      }
      const ended = await Promise.race([process.status, sleep(10)]);
      if (ended !== undefined || Date.now() - begin > START_MS) {
        try {
          process.kill("SIGKILL");
        } catch {
          // It has ended.
        }
        await process.status;
        await readers;
        throw new Error(`volcast serve ${args.join(" ")} did not start:\n${out.text}${log.text}`);
      }
    }
  }

  /** What it wrote to standard error so far. */
  get log(): string {
    return this.#log.text;
  }

  /** Asks it to end. @returns Its exit code. */
  async stop(): Promise<number> {
    return await this.#end("SIGTERM");
  }

  /** Ends it at once. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** Bytes of resident memory. */
  rss(): number {
    const status = Deno.readTextFileSync(`/proc/${this.process.pid}/status`);
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
  }

  async #end(signal: Deno.Signal): Promise<number> {
    if (!this.#ended) {
      this.#ended = true;
      try {
        this.process.kill(signal);
      } catch {
        // It has ended.
      }
    }
    const { code } = await this.process.status;
    await this.#readers;
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#ended) await this.stop();
  }
}

async function collect(
  stream: ReadableStream<Uint8Array>,
  target: { text: string },
): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) target.text += decoder.decode(chunk, { stream: true });
}

/** JSON of a URL. */
export async function getJson(url: string): Promise<Record<string, unknown>> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`);
  return await response.json();
}

/** Id of a node's current snapshot, `undefined` while it has none. */
export async function currentOf(url: string): Promise<string | undefined> {
  const status = await getJson(`${url}/status`) as { current?: { name: string } };
  return status.current?.name;
}

/** A directory that is removed at the end. */
export class TempDirectory implements Disposable {
  readonly path: string = Deno.makeTempDirSync({ prefix: "volcast-e2e-" });

  /** Path of something in it. */
  file(name: string): string {
    return `${this.path}/${name}`;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

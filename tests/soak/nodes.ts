/**
 * A hierarchy of servers, each its own process: an origin, two sites, and one below each of them.
 *
 * @module
 */

import { Server, type TempDirectory, until, volcast } from "../e2e/harness.ts";
import { Proxy } from "../e2e/proxy.ts";

/** One place of the hierarchy; the processes at it come and go. */
export class SoakNode {
  readonly name: string;
  readonly volume: string;
  /** The line to the parent; `undefined` for the origin. */
  readonly line: Proxy | undefined;
  /** How many processes there have been. */
  incarnation = 0;
  /** Whether readers may count on it. */
  isLive = false;
  server!: Server;
  /** Logs of processes that ended. */
  pastLog = "";
  readonly #args: readonly string[];
  #port = 0;

  constructor(
    name: string,
    { volume, args, line }: { volume: string; args: readonly string[]; line?: Proxy },
  ) {
    this.name = name;
    this.volume = volume;
    this.line = line;
    this.#args = args;
  }

  /** Where it listens: the same for every process. */
  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** The port of {@linkcode SoakNode.url}. */
  get port(): number {
    return this.#port;
  }

  /** Starts a process, and waits until it has something to serve. */
  async start(): Promise<void> {
    const args = [this.volume, ...this.#args, "--www", "127.0.0.1:0"];
    this.server = await Server.start(args, { port: this.#port });
    this.#port = Number(new URL(this.server.url).port);
    this.incarnation++;
    await until(`${this.name} has a release`, () => this.#hasRelease());
    this.isLive = true;
  }

  /** Ends its process as a power cut would. */
  async kill(): Promise<void> {
    this.isLive = false;
    await this.server.kill();
    this.pastLog += this.server.log;
  }

  /** Ends its process in order. @returns The exit code. */
  async stop(): Promise<number> {
    this.isLive = false;
    const code = await this.server.stop();
    this.pastLog += this.server.log;
    return code;
  }

  async #hasRelease(): Promise<boolean> {
    try {
      const response = await fetch(`${this.url}/files/marks/0`);
      await response.body?.cancel();
      return response.ok;
    } catch {
      return false;
    }
  }
}

/** Makes and starts the hierarchy; every line goes through a proxy, and leaves have a second parent. */
export async function startHierarchy(directory: TempDirectory, tree: string): Promise<SoakNode[]> {
  const file = (name: string) => directory.file(name);
  await volcast(["keygen", file("key")]);
  await volcast(["init", file("origin.vol"), "--size", "224MiB"]);
  await volcast(["publish", file("origin.vol"), tree, "--as", "r0"]);
  const scrub = ["--scrub", "4MiB"];
  const origin = new SoakNode("origin", {
    volume: file("origin.vol"),
    args: ["--sign", file("key"), ...scrub],
  });
  await origin.start();
  const nodes = [origin];
  const site = async (name: string, parent: SoakNode, second?: SoakNode) => {
    const line = new Proxy(parent.port, { counts: "server" });
    const parents = [line.url, ...(second === undefined ? [] : [second.url])];
    const node = new SoakNode(name, {
      volume: file(`${name}.vol`),
      line,
      args: [
        ...["--site", name, "--every", "2s", "--trust", file("key.pub"), ...scrub],
        ...parents.flatMap((url) => ["--parent", url]),
      ],
    });
    await node.start();
    nodes.push(node);
    return node;
  };
  const paris = await site("paris", origin);
  const rome = await site("rome", origin);
  await site("berlin", paris, rome);
  await site("oslo", rome, origin);
  return nodes;
}

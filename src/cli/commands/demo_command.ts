/**
 * `volcast demo`: the main job in front of one's eyes. Real files, real servers on loopback: an origin,
 * two sites in a chain, a second release.
 *
 * @module
 */

import { format as formatBytes } from "@std/fmt/bytes";
import { z } from "zod";
import { importTree } from "../../archive/mod.ts";
import { VolcastError } from "../../core/mod.ts";
import { HttpPeer, requestFrom, type RunningServer, startServer } from "../../http/mod.ts";
import { follow, Node, Puller } from "../../replication/mod.ts";
import { createVolumeFile, fsck, MASTER } from "../../volume/mod.ts";
import { defineCommand } from "../command.ts";
import { EXIT_CODES } from "../exit.ts";
import { hostEntries } from "../host_read.ts";
import type { Terminal } from "../terminal.ts";
import { VERSION } from "../version.ts";

const SCHEMA = z.object({ once: z.boolean().optional() });
const PAGES = 400;
const PICTURES = 24;

/** See the module. */
export const demoCommand = defineCommand({
  name: ["demo"],
  summary: "show the main job: publish, replicate down a chain, serve",
  usage: "",
  positionals: [0, 0],
  examples: ["volcast demo", "volcast demo --once"],
  options: { once: { help: "end when all is shown, instead of serving until Ctrl-C" } },
  schema: SCHEMA,
  async run(_args, options, terminal): Promise<number> {
    const directory = await Deno.makeTempDir({ prefix: "volcast-demo-" });
    const demo = new Demo(directory, terminal);
    try {
      await demo.show();
      if (options.once) return EXIT_CODES.done;
      terminal.print(`\nLook at it: ${demo.urls.www}/  (paris, content only)`);
      terminal.print(`            ${demo.urls.rome}/files/  ${demo.urls.rome}/status`);
      terminal.print("Ctrl-C ends it and removes everything.");
      await interrupted();
      return EXIT_CODES.done;
    } finally {
      await demo.stop();
      await Deno.remove(directory, { recursive: true });
    }
  },
});

/** One run of the demonstration. */
class Demo {
  readonly urls = { origin: "", paris: "", rome: "", www: "" };
  readonly #directory: string;
  readonly #terminal: Terminal;
  readonly #nodes: Node[] = [];
  readonly #servers: RunningServer[] = [];
  readonly #stopping = new AbortController();
  readonly #following: Promise<void>[] = [];
  /** The release that each site told of last. */
  readonly #told = new Map<Node, string>();

  constructor(directory: string, terminal: Terminal) {
    this.#directory = directory;
    this.#terminal = terminal;
  }

  async show(): Promise<void> {
    const say = (text: string) => this.#terminal.print(text);
    const tree = `${this.#directory}/public`;
    makeRelease(tree);
    const volume = await createVolumeFile(`${this.#directory}/site.vol`, 512 * 2 ** 20);
    const origin = new Node({ name: "origin", path: `${this.#directory}/site.vol`, volume });
    this.urls.origin = this.#serve(origin).url;
    say(`origin  ${this.urls.origin}  serves site.vol`);
    await this.#publish(origin, tree, "june3");

    const paris = this.#site("paris", this.urls.origin, true);
    const rome = this.#site("rome", this.urls.paris, false);
    say(`paris   ${this.urls.paris}  follows origin`);
    say(`rome    ${this.urls.rome}  follows paris`);
    await this.#arrived("june3", [paris, rome]);

    changeRelease(tree);
    say("\nA second release: two pages edited, one renamed, one removed, one picture replaced");
    await this.#publish(origin, tree, "june5");
    await this.#arrived("june5", [paris, rome]);
    await this.#compare([origin, paris, rome]);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#following);
    await Promise.all(this.#servers.map((server) => server.stop()));
    for (const node of this.#nodes) await node.volumeIfAny?.close();
  }

  #serve(node: Node, www = false): RunningServer {
    const loopback = { hostname: "127.0.0.1", port: 0 };
    const server = startServer(node, {
      listen: loopback,
      ...(www ? { www: loopback } : {}),
      tokens: {},
      version: VERSION,
      log: (text) => this.#terminal.note(text),
      graceMs: 500,
    });
    this.#nodes.push(node);
    this.#servers.push(server);
    return server;
  }

  #site(name: "paris" | "rome", parent: string, www: boolean): Node {
    const node = new Node({ name, path: `${this.#directory}/${name}.vol` });
    const server = this.#serve(node, www);
    this.urls[name] = server.url;
    if (server.wwwUrl !== undefined) this.urls.www = server.wwwUrl;
    node.upstream = { parent };
    const parents = [new HttpPeer(parent)];
    node.events.subscribe((event) => {
      // A parent that has nothing yet is no news here: the site asks again at once when it has.
      if (event.type !== "pull" || event.result === "failed") return;
      this.#terminal.print(`  ${name.padEnd(6)} ${event.message.replace(/ from http\S+/, "")}`);
      this.#told.set(node, node.volume.current.name);
    });
    this.#following.push(
      follow(
        node,
        new Puller(node, { parents, drainMs: 500 }),
        { everyMs: 300, parents, log: () => {} },
        this.#stopping.signal,
      ),
    );
    return node;
  }

  async #publish(origin: Node, tree: string, name: string): Promise<void> {
    const begin = performance.now();
    const { report } = await origin.volume.exclusive(async (writer) => {
      const report = await importTree(writer, hostEntries(tree), { prune: true });
      const snapshot = await writer.takeSnapshot(name, { pointers: [MASTER] });
      return { report, snapshot };
    });
    origin.announceMaster();
    this.#terminal.print(
      `Published '${name}': ${report.files} files, ${
        report.changed + report.created
      } names changed, ` +
        `${formatBytes(report.bytesRead)} read, in ${since(begin)}`,
    );
  }

  async #arrived(name: string, nodes: readonly Node[]): Promise<void> {
    const begin = performance.now();
    const there = (node: Node) => this.#told.get(node) === name;
    while (!nodes.every(there)) {
      if (performance.now() - begin > 60_000) {
        throw new VolcastError("io", `Cannot finish: '${name}' did not reach every site in 60 s`);
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    this.#terminal.print(`'${name}' is at every site, ${since(begin)} after it was published`);
  }

  async #compare(nodes: readonly Node[]): Promise<void> {
    const answers: string[] = [];
    for (const url of [this.urls.origin, this.urls.paris, this.urls.rome]) {
      const response = await requestFrom({ name: url, token: undefined }, "/files/index.html");
      answers.push(`${response.headers.get("etag")} ${await response.text()}`);
    }
    if (new Set(answers).size !== 1) {
      throw new VolcastError("damaged", "The three nodes do not give the same page");
    }
    for (const node of nodes) {
      if (!fsck(node.volume).clean) throw new VolcastError("damaged", `${node.path} is not clean`);
    }
    this.#terminal.print("All three volumes pass fsck; /files/index.html has one ETag everywhere");
  }
}

/** A small web site with text and incompressible pictures. */
function makeRelease(tree: string): void {
  Deno.mkdirSync(`${tree}/pages`, { recursive: true });
  Deno.mkdirSync(`${tree}/pictures`);
  const links: string[] = [];
  for (let page = 0; page < PAGES; page++) {
    const name = `page-${String(page).padStart(3, "0")}.html`;
    Deno.writeTextFileSync(`${tree}/pages/${name}`, pageText(page, "june3"));
    links.push(`<li><a href="pages/${name}">Page ${page}</a>`);
  }
  for (let picture = 0; picture < PICTURES; picture++) {
    Deno.writeFileSync(`${tree}/pictures/${picture}.bin`, noise(512 * 1024));
  }
  Deno.writeTextFileSync(
    `${tree}/index.html`,
    `<!doctype html><title>Demo</title><h1>A mirrored site</h1><ul>${links.join("\n")}</ul>\n`,
  );
  Deno.symlinkSync("index.html", `${tree}/home.html`);
}

function changeRelease(tree: string): void {
  for (const page of [7, 8]) {
    Deno.writeTextFileSync(
      `${tree}/pages/page-${String(page).padStart(3, "0")}.html`,
      pageText(page, "june5"),
    );
  }
  Deno.renameSync(`${tree}/pages/page-010.html`, `${tree}/pages/renamed.html`);
  Deno.removeSync(`${tree}/pages/page-011.html`);
  Deno.writeFileSync(`${tree}/pictures/3.bin`, noise(512 * 1024));
}

function pageText(page: number, release: string): string {
  const paragraph = `<p>This is page ${page} as of ${release}, with a line of text. </p>\n`;
  return `<!doctype html><title>Page ${page}</title>${paragraph.repeat(40 + page % 60)}`;
}

function noise(byteCount: number): Uint8Array {
  const bytes = new Uint8Array(byteCount);
  for (let at = 0; at < byteCount; at += 65536) {
    crypto.getRandomValues(bytes.subarray(at, at + 65536));
  }
  return bytes;
}

function since(begin: number): string {
  return `${((performance.now() - begin) / 1000).toFixed(2)} s`;
}

function interrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      Deno.addSignalListener(signal, () => resolve());
    }
  });
}

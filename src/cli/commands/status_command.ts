/**
 * `volcast status`: how a node is.
 *
 * @module
 */

import { z } from "zod";
import { messageOf, VolcastError } from "../../core/mod.ts";
import { answerFrom, bodyOf, nameOf } from "../../http/mod.ts";
import { defineRemoteCommand } from "../command.ts";
import type { CommandCredentials } from "../credentials.ts";
import { EXIT_CODES } from "../exit.ts";
import { isUrl } from "../local_volume.ts";
import { statusText } from "../status_text.ts";
import { openTarget } from "../target.ts";
import { DURATION_MS } from "../units.ts";

/** Time between two questions whether a server is ready. */
const POLL_MS = 100;

/** See the module. */
export const statusCommand = defineRemoteCommand({
  name: ["status"],
  summary: "say how a server is: what it has, whom it follows, what comes in",
  usage: "VOLUME",
  positionals: [1, 1],
  details:
    `With --wait, first waits until the server is ready: its volume is open and, at an edge, a
first master is there. When the time ends before that, the exit code is 1.`,
  examples: [
    "volcast status http://127.0.0.1:8080",
    "volcast status http://127.0.0.1:8081 --wait 30s --json",
  ],
  options: {
    wait: { value: "TIME", help: "wait for the server to be ready, as long as this" },
    json: { help: "as JSON: what GET /status says" },
  },
  schema: z.object({ wait: DURATION_MS.optional(), json: z.boolean().optional() }),
  async run([volume], options, terminal): Promise<number> {
    if (options.wait !== undefined) {
      await waitUntilReady(volume, options.wait, options.credentials);
    }
    await using target = await openTarget(volume, options);
    const status = await target.status();
    if (options.json) terminal.printJson(status);
    else terminal.print(statusText(status));
    return EXIT_CODES.done;
  },
});

async function waitUntilReady(
  url: string,
  limitMs: number,
  credentials: CommandCredentials,
): Promise<void> {
  if (!isUrl(url)) {
    throw new VolcastError(
      "usage",
      `Cannot wait for ${url}: it is a path, and only a server is ready or not`,
      "Give the server's URL, such as http://127.0.0.1:8080",
    );
  }
  // Before it is shown: it must have no password.
  nameOf(url);
  const deadline = performance.now() + limitMs;
  for (;;) {
    const left = deadline - performance.now();
    // Asked once at least, even if there is no time to wait.
    const reason = await notReady(url, Math.max(left, 1000), credentials);
    if (reason === undefined) return;
    if (left <= 0) {
      throw new VolcastError(
        "io",
        `Cannot wait longer for ${url}: after ${limitMs} ms it is not ready (${reason})`,
        "Look at its log",
      );
    }
    await new Promise((resolve) => setTimeout(resolve, Math.min(POLL_MS, left)));
  }
}

/** Why a server is not ready; `undefined` when it is. */
async function notReady(
  url: string,
  answerMs: number,
  { client }: CommandCredentials,
): Promise<string | undefined> {
  try {
    const server = { name: nameOf(url), token: undefined, client };
    const response = await answerFrom(server, "/readyz", { answerMs });
    const text = await new Response(bodyOf(response, url) as BodyInit).text();
    // A page of a portal says 200, too.
    if (response.status === 200 && text === "ready\n") return undefined;
    return text.trim().replace(/^not ready: /, "").slice(0, 200) || `status ${response.status}`;
  } catch (error) {
    return messageOf(error);
  }
}

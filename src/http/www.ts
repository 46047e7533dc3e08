/**
 * The content-only server: files of the published snapshot at `/`, and no other route.
 *
 * @module
 */

import { VolcastError } from "../core/mod.ts";
import type { Node } from "../replication/mod.ts";
import { MASTER, type View } from "../volume/mod.ts";
import { fileResponse } from "./file_response.ts";
import { pathOf } from "./routes/files.ts";

/** Handles a request for public content. */
export function serveContent(node: Node, request: Request): Response {
  if (request.method !== "GET" && request.method !== "HEAD") {
    return plain(405, "Method not allowed", { allow: "GET, HEAD" });
  }
  let view: View | undefined;
  try {
    const { volume } = node;
    view = volume.view(volume.find(MASTER) === undefined ? "active" : MASTER);
    const path = pathOf(request.url, "");
    let info = view.fs.stat(view.fs.resolve(path));
    let name = path;
    if (info.type === "directory") {
      if (!path.endsWith("/")) {
        view.release();
        return plain(301, "Moved", {
          location: `${new URL(request.url).pathname.replace(/^\/+/, "/")}/`,
        });
      }
      name = `${path}index.html`;
      info = view.fs.stat(view.fs.resolve(name));
    }
    if (info.type !== "file") throw new VolcastError("not-found", "not a file");
    return fileResponse(request, view, { info, name, volumeId: volume.volumeId });
  } catch (error) {
    view?.release();
    if (!(error instanceof VolcastError)) throw error;
    if (error.kind === "busy") return plain(503, "Not ready yet", { "retry-after": "2" });
    if (error.kind === "damaged") return plain(500, "Cannot read this file");
    return plain(404, "Not found");
  }
}

function plain(status: number, text: string, headers: HeadersInit = {}): Response {
  const result = new Headers(headers);
  result.set("content-type", "text/plain; charset=utf-8");
  result.set("x-content-type-options", "nosniff");
  return new Response(`${text}\n`, { status, headers: result });
}

/**
 * `/files/{path}`: reading files, and listings of directories in HTML and JSON.
 *
 * @module
 */

import { Hono } from "hono";
import { z } from "zod";
import { VolcastError } from "../../core/mod.ts";
import { type FileInfo, MASTER, type View } from "../../volume/mod.ts";
import { fileJson } from "../describe.ts";
import type { Env, RouteContext } from "../env.ts";
import { fileResponse } from "../file_response.ts";
import { readQuery, REF } from "../validate.ts";

const QUERY = z.strictObject({
  at: REF.optional(),
  format: z.enum(["json", "html"]).optional(),
  after: z.string().max(255).optional(),
  limit: z.coerce.number().int().min(1).max(10_000).default(1000),
});
type Query = z.output<typeof QUERY>;

/** See the module. */
export const fileRoutes = new Hono<Env>();

fileRoutes.get("/*", (c) => {
  const query = readQuery(c, QUERY);
  const { volume } = c.get("node");
  const path = pathOf(c.req.raw.url, "/files");
  const view = volume.view(query.at ?? (volume.find(MASTER) === undefined ? "active" : MASTER));
  let handedOver = false;
  try {
    const ino = view.fs.resolve(path, { followLast: query.format !== "json" });
    const info = view.fs.stat(ino);
    const name = path.split("/").findLast((part) => part !== "") ?? "";
    if (info.type === "directory") return listing(c, view, { path, info, query });
    if (query.format === "json") return c.json(fileJson(view.fs, info, { path, name }));
    if (info.type !== "file") {
      throw new VolcastError("usage", `Cannot read '${path}': it is a ${info.type}, not a file`);
    }
    handedOver = true;
    return fileResponse(c.req.raw, view, {
      info,
      name,
      volumeId: volume.volumeId,
    });
  } finally {
    if (!handedOver) view.release();
  }
});

/** The path behind a prefix of a URL, decoded. @throws {VolcastError} `usage`. */
export function pathOf(url: string, prefix: string): string {
  const { pathname } = new URL(url);
  try {
    return pathname.slice(prefix.length).split("/").map((part) => {
      const name = decodeURIComponent(part);
      if (name.includes("/") || name.includes("\0")) throw new URIError("a slash or NUL in a name");
      return name;
    }).join("/") || "/";
  } catch {
    throw new VolcastError(
      "usage",
      `Cannot use the path '${pathname}': it is not the encoding of a path in UTF-8`,
    );
  }
}

function listing(
  c: RouteContext,
  view: View,
  { path, info, query }: { path: string; info: FileInfo; query: Query },
): Response {
  const json = query.format === "json" ||
    (query.format === undefined && /application\/json/.test(c.req.header("accept") ?? ""));
  if (!json && !path.endsWith("/")) {
    const url = new URL(c.req.url);
    return c.redirect(`${url.pathname}/${url.search}`, 301);
  }
  const entries: { info: FileInfo; name: string }[] = [];
  let next: string | undefined;
  for (const entry of view.fs.list(info.ino, query.after)) {
    if (entries.length === query.limit) {
      next = entries.at(-1)!.name;
      break;
    }
    entries.push({ info: view.fs.stat(entry.ino), name: entry.name });
  }
  const folder = path.replace(/\/+$/, "");
  if (json) {
    return c.json(
      {
        ...fileJson(view.fs, info, { path, name: folder.split("/").at(-1) ?? "" }),
        at: view.snapshot.name,
        snapshot: view.snapshot.id,
        entries: entries.map((entry) =>
          fileJson(view.fs, entry.info, { path: `${folder}/${entry.name}`, name: entry.name })
        ),
        ...(next === undefined ? {} : { next }),
      },
      200,
      { vary: "accept" },
    );
  }
  return c.html(listingPage(path, view.snapshot.name, entries, { next, query }), 200, {
    "content-security-policy":
      "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-cache",
    vary: "accept",
  });
}

function listingPage(
  path: string,
  snapshot: string,
  entries: readonly { info: FileInfo; name: string }[],
  { next, query }: { next: string | undefined; query: Query },
): string {
  const search = query.at === undefined ? "" : `?at=${encodeURIComponent(query.at)}`;
  const rows = entries.map(({ info, name }) => {
    const slash = info.type === "directory" ? "/" : "";
    return `<tr><td><a href="./${encodeURIComponent(name)}${slash}${search}">${
      escapeHtml(name)
    }${slash}</a><td>${info.type === "file" ? info.size : ""}<td>${
      new Date(Number(info.mtime / 1_000_000n)).toISOString().slice(0, 19).replace("T", " ")
    }`;
  });
  const more = next === undefined
    ? ""
    : `<p><a href="?${search === "" ? "" : `${search.slice(1)}&amp;`}after=${
      encodeURIComponent(next)
    }">More</a>`;
  return `<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escapeHtml(path)}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em}
table{border-collapse:collapse;width:100%}td{padding:.15em .5em;border-bottom:1px solid #8884}
td+td{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
a{text-decoration:none}a:hover{text-decoration:underline}
@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}a{color:#8bf}}</style>
<h1>${escapeHtml(path)}</h1><p>Snapshot ${escapeHtml(snapshot)}</p>
<table>${path === "/" ? "" : `<tr><td><a href="../${search}">../</a><td><td>`}${
    rows.join("\n")
  }</table>${more}
`;
}

function escapeHtml(text: string): string {
  const names: Record<string, string> = { "&": "amp", "<": "lt", ">": "gt", '"': "quot" };
  return text.replace(/[&<>"]/g, (char) => `&${names[char]};`);
}

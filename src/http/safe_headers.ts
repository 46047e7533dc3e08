/**
 * Headers that keep browsers from making more of an answer than it is. What a volume holds was written by
 * anybody; the API stands at the same address as `/files`, so a page from there must not be able to use it.
 *
 * - The API's answers are nobody's page, frame or script: `default-src 'none'`, `same-origin`.
 * - `/files` is for looking at: each answer is in a sandbox, an origin of its own without scripts and forms.
 *   So its pictures come to its pages from another origin, and must be `cross-origin`.
 * - The content-only listener is a plain site, and a mirror that others may embed: no sandbox.
 *
 * @module
 */

/** Whose answer it is. */
export type Face = "api" | "files" | "site";

const ALWAYS: Readonly<Record<string, string>> = { "x-content-type-options": "nosniff" };

/** Values that an answer has unless its route said something else. */
const BY_FACE: Readonly<Record<Face, Readonly<Record<string, string>>>> = {
  api: {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
  },
  files: {
    "content-security-policy": "sandbox",
    "cross-origin-resource-policy": "cross-origin",
    "referrer-policy": "no-referrer",
  },
  site: {
    "cross-origin-resource-policy": "cross-origin",
    "referrer-policy": "strict-origin-when-cross-origin",
  },
};

/** Those of a face, for whoever sets no others. */
export function safeFields(face: Face): [name: string, value: string][] {
  return Object.entries({ ...ALWAYS, ...BY_FACE[face] });
}

/** Sets them; what the route set stays. */
export function setSafeHeaders(headers: Headers, face: Face): void {
  for (const [name, value] of Object.entries(ALWAYS)) headers.set(name, value);
  for (const [name, value] of Object.entries(BY_FACE[face])) {
    if (!headers.has(name)) headers.set(name, value);
  }
}

/** Marks an answer that not everybody gets: no shared cache may keep it, and no other origin embed it. */
export function setPrivate(headers: Headers): void {
  headers.set("cross-origin-resource-policy", "same-origin");
  const vary = headers.get("vary") ?? "";
  if (!/\bauthorization\b/i.test(vary)) headers.append("vary", "Authorization");
  const said = (headers.get("cache-control") ?? "no-store").split(",").map((item) => item.trim());
  if (said.includes("no-store")) return headers.set("cache-control", "no-store");
  const kept = said.filter((item) => !/^(public|s-maxage=.*)$/i.test(item));
  headers.set("cache-control", ["private", ...kept].join(", "));
}

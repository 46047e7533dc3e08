import { assertEquals, assertStringIncludes } from "@std/assert";
import { ARROWS, checkLayers } from "../../scripts/check_layers.ts";

/** Checks one file and returns its violations as `line message`. */
function check(path: string, ...lines: string[]): string[] {
  return checkLayers([{ path, text: lines.join("\n") }]).map((v) => `${v.line} ${v.message}`);
}

Deno.test("checkLayers() accepts every arrow of the table", () => {
  for (const [room, allowed] of Object.entries(ARROWS)) {
    const [path, up] = room === "main.ts" ? [room, "./src"] : [`src/${room}/a.ts`, ".."];
    for (const target of allowed) {
      assertEquals(check(path, `import { x } from "${up}/${target}/mod.ts";`), []);
    }
  }
});

Deno.test("checkLayers() rejects every arrow that is not in the table", () => {
  const rooms = Object.keys(ARROWS).filter((room) => room !== "main.ts");
  for (const room of rooms) {
    for (const target of rooms) {
      if (target === room || ARROWS[room]!.includes(target)) continue;
      const found = check(`src/${room}/a.ts`, `import { x } from "../${target}/mod.ts";`);
      assertEquals(found.length, 1, `${room} -> ${target}`);
      assertStringIncludes(found[0]!, `1 ${room} imports ${target}; it may import `);
    }
  }
});

Deno.test("checkLayers() has a table without circles", () => {
  const reach = (room: string): string[] => ARROWS[room]!.flatMap((to) => [to, ...reach(to)]);
  for (const room of Object.keys(ARROWS)) assertEquals(reach(room).includes(room), false, room);
});

Deno.test("checkLayers() names file, line and what is allowed", () => {
  const text = [
    "/** Bytes. */",
    'import { a } from "../core/mod.ts";',
    "import {",
    "  b,",
    '} from "../volume/mod.ts";',
  ].join("\n");
  assertEquals(checkLayers([{ path: "src/format/stream.ts", text }]), [{
    path: "src/format/stream.ts",
    line: 5,
    message: "format imports volume; it may import core",
  }]);
  assertEquals(check("src/core/a.ts", 'export * from "../format/mod.ts";'), [
    "1 core imports format; it may import no other room",
  ]);
});

Deno.test("checkLayers() sees every kind of import", () => {
  for (
    const line of [
      'import type { V } from "../volume/mod.ts";',
      'import "../volume/mod.ts";',
      'export { V } from "../volume/mod.ts";',
      'const v = await import("../volume/mod.ts");',
      'type V = import("../volume/mod.ts").V;',
    ]
  ) {
    assertEquals(check("src/core/a.ts", "// first", line).length, 1, line);
  }
  assertEquals(check("src/cli/a.ts", "await import(name);").length, 1);
});

Deno.test("checkLayers() accepts imports within a room, packages and deno.json", () => {
  assertEquals(
    check(
      "src/cli/commands/serve.ts",
      'import { a } from "../_flags.ts";',
      'import { z } from "zod";',
      'import denoJson from "../../../deno.json" with { type: "json" };',
    ),
    [],
  );
});

Deno.test("checkLayers() rejects code outside the rooms", () => {
  assertEquals(check("src/util.ts").length, 1);
  assertEquals(check("src/misc/a.ts").length, 1);
  assertEquals(check("src/cli/a.ts", 'import { x } from "../misc/a.ts";').length, 1);
  assertEquals(check("src/cli/a.ts", 'import { x } from "../../scripts/compile.ts";').length, 1);
  assertEquals(check("src/core/a.ts", 'import { x } from "../../main.ts";').length, 1);
});

Deno.test("checkLayers() keeps hono out of all rooms but http and cli", () => {
  for (const specifier of ["hono", "hono/streaming", "npm:hono@4"]) {
    const line = `import { Hono } from "${specifier}";`;
    assertEquals(check("src/http/app.ts", line), []);
    assertEquals(check("src/replication/pull.ts", line), [
      `1 replication imports ${specifier}; only cli, http may`,
    ]);
  }
});

Deno.test("checkLayers() keeps open files in store and cli", () => {
  for (const use of ["Deno.open(path)", "Deno.openSync(path)", "file as Deno.FsFile"]) {
    assertEquals(check("src/store/file_store.ts", use), []);
    assertEquals(check("src/cli/commands/import.ts", use), []);
    for (const room of ["image", "archive", "http", "volume"]) {
      assertEquals(check(`src/${room}/a.ts`, use).length, 1, `${room}: ${use}`);
    }
  }
});

Deno.test("checkLayers() looks past comments, and only past them", () => {
  assertEquals(
    check(
      "src/core/a.ts",
      "/**",
      ' * import { V } from "../volume/mod.ts"; Deno.open(path)',
      " */",
      'let a = 1; // from "../volume/mod.ts"',
      "const b = /[/*]/;",
      'const c = "http://" + Deno.openSync(path);',
    ),
    ["6 core uses Deno.openSync; only cli, store may"],
  );
});

import { assert, assertEquals, assertThrows } from "@std/assert";
import { VolcastError } from "../../src/core/mod.ts";
import {
  Access,
  checkToken,
  digestOf,
  newToken,
  openTokenFile,
  parseClientTokens,
  parseScopes,
  parseTokens,
  ROUTE_TABLE,
  tokenLine,
  TokenSet,
} from "../../src/http/mod.ts";
import { test } from "../helpers/strict.ts";
import { makeTokenFile, tokenText } from "../helpers/tokens.ts";

const HEX = "ab".repeat(32);

test("newToken() has 256 random bits, and its line has everything but the token", () => {
  const [a, b] = [newToken(), newToken()];
  assert(/^volcast_[\w-]{43}$/.test(a) && a !== b, a);
  const token = {
    name: "paris",
    scopes: parseScopes("write,read"),
    site: "paris",
    digest: digestOf(a),
  };
  const line = tokenLine(token);
  assert(/^paris read,write site=paris sha256:[0-9a-f]{64}$/.test(line), line);
  assertEquals(parseTokens(line).map(tokenLine), [line]);
});

test("parseTokens() reads comments, blanks and tabs, and takes no line for another", () => {
  const text = `# for the people\n\n  ci \t write sha256:${HEX}  \n#x admin sha256:${HEX}\r\n`;
  assertEquals(parseTokens(text).map(({ name, scopes }) => [name, scopes]), [["ci", ["write"]]]);
  assertEquals(parseTokens("# none yet\n"), []);
  for (
    const [damage, says] of [
      ["", "empty"],
      [" \n\n", "empty"],
      [`ci write sha256:${HEX.slice(1)}`, "line 1"],
      [`ci write sha256:${HEX}0`, "line 1"],
      [`ci write sha256:${HEX.toUpperCase()}`, "line 1"],
      [`\nci write ${HEX}`, "line 2"],
      [`ci sha256:${HEX}`, "line 1"],
      [`ci root sha256:${HEX}`, "none of the scopes"],
      [`ci read, sha256:${HEX}`, "none of the scopes"],
      [`../ci read sha256:${HEX}`, "name"],
      [`ci read site= sha256:${HEX}`, "site=SITE"],
      [`ci read paris sha256:${HEX}`, "site=SITE"],
      [`ci read site=a site=b sha256:${HEX}`, "5 words"],
      [`ci read sha256:${HEX}\nci admin sha256:${"0".repeat(64)}`, "'ci' again"],
      [`ci read sha256:${HEX}\nci2 admin sha256:${HEX}`, "another line"],
      [`ci read sha256:${HEX} # admin`, "line 1"],
      [`volcast_secret`, "line 1"],
    ]
  ) {
    const error = assertThrows(() => parseTokens(damage), VolcastError, says, damage);
    assert(!error.message.includes("volcast_secret"), error.message);
  }
  assertThrows(() => parseScopes("read,root"), VolcastError, "'root'");
});

test("TokenSet finds each token by its secret alone, whatever bit of its digest differs", () => {
  const names = Array.from({ length: 50 }, (_, n) => `t${n}`);
  const digests = names.map((name) => digestOf(`secret of ${name}`));
  const all = names.map((name, n) => ({ name, scopes: ["read"] as const, digest: digests[n] }));
  const tokens = new TokenSet(all);
  for (const name of names) assertEquals(tokens.find(`secret of ${name}`)?.name, name);
  assertEquals(tokens.find("secret of t50"), undefined);
  assertEquals(tokens.find(""), undefined);
  assertEquals(new TokenSet([]).find("secret of t0"), undefined);
  for (let bit = 0; bit < 256; bit++) {
    const digest = digestOf("secret of t0");
    digest[bit >> 3] ^= 1 << (bit & 7);
    assertEquals(new TokenSet([{ ...all[0], digest }]).find("secret of t0"), undefined, `${bit}`);
  }
});

/** Whether a token may do something with a scope. */
function may(access: Access, token: string, route: string): boolean {
  const request = new Request("http://localhost/x", {
    headers: { authorization: `Bearer ${token}` },
  });
  try {
    access.admit(request, ROUTE_TABLE[route], []);
    return true;
  } catch (error) {
    assert(error instanceof VolcastError && error.kind === "denied", String(error));
    return false;
  }
}

test("tokens are rotated while the server runs, and no damage opens anything or takes anything", () => {
  using file = makeTokenFile([{ token: "one", scopes: ["write"] }]);
  const log: string[] = [];
  const tokens = { file: openTokenFile(file.path, { log: (text) => log.push(text), everyMs: 0 }) };
  const access = new Access({ tokens, loopback: true });
  const publish = (token: string) => may(access, token, "POST /publish");
  assertEquals([publish("one"), publish("two")], [true, false]);

  file.write(tokenText([{ token: "two", scopes: ["write"] }]));
  assertEquals([publish("one"), publish("two")], [false, true]);
  assertEquals(access.status.tokenFile, "good");

  const nobody = new Request("http://localhost/x");
  const assertOpenToNobody = () =>
    assertThrows(
      () => access.admit(nobody, ROUTE_TABLE["POST /publish"], []),
      VolcastError,
      "token",
    );
  const damages: (() => void)[] = [
    () => file.write(""),
    () => file.write("volcast_secret\n"),
    () => file.write(tokenText([{ token: "x", scopes: ["admin"] }]).slice(0, -5)),
    () => Deno.chmodSync(file.path, 0o666),
    () => Deno.removeSync(file.path),
    () => Deno.mkdirSync(file.path),
  ];
  for (const damage of damages) {
    damage();
    log.length = 0;
    assertEquals([publish("one"), publish("two"), publish("x")], [false, true, false]);
    assertOpenToNobody();
    assert(access.status.tokenFile?.startsWith("cannot be read"), `${access.status.tokenFile}`);
    assertEquals(log.length, 1, "it is said once");
    assert(log[0].includes("going on with those read before"), log[0]);
    assert(!log[0].includes("secret"), log[0]);
  }
  Deno.removeSync(file.path);
  file.write(tokenText([{ token: "three", scopes: ["write"] }]));
  assertEquals([publish("two"), publish("three")], [false, true]);
  assertEquals([access.status.tokenFile, log.at(-1)], ["good", "Read the tokens again"]);

  // The last one revoked: nobody is let in any more, on loopback neither.
  file.write("# none\n");
  assertEquals(publish("three"), false);
  assertOpenToNobody();
});

test("a file is looked at as often as said, and at once when asked to", () => {
  using file = makeTokenFile([{ token: "one", scopes: ["write"] }]);
  const tokens = { file: openTokenFile(file.path, { log: () => {}, everyMs: 3_600_000 }) };
  const access = new Access({ tokens, loopback: true });
  file.write(tokenText([{ token: "two", scopes: ["write"] }]));
  assertEquals(may(access, "two", "POST /publish"), false);
  access.reread();
  assertEquals(may(access, "two", "POST /publish"), true);
});

test("a server does not start with a token file that is missing, empty, damaged or has no token", () => {
  using file = makeTokenFile([]);
  const open = () => openTokenFile(file.path, { log: () => {} });
  const error = assertThrows(open, VolcastError, "there is none");
  assert(error.hint.includes("volcast token create"), error.hint);
  file.write("");
  assertThrows(open, VolcastError, "it is empty");
  file.write("x\n");
  assertThrows(open, VolcastError, "line 1");
  file.write(tokenText([{ token: "one", scopes: ["write"] }]));
  Deno.chmodSync(file.path, 0o646);
  assertThrows(open, VolcastError, "everybody on this host may write it");
  Deno.removeSync(file.path);
  assertThrows(open, VolcastError, "there is no such file");
  assertThrows(
    () => new Access({ tokens: {}, loopback: true, isPrivate: true }),
    VolcastError,
    "nobody could be let in",
  );
});

test("parseClientTokens() tells servers apart by their origin", () => {
  const tokens = parseClientTokens(
    "# mine\nhttps://a.example/x tokenA\nhttp://a.example:80 tokenB\n",
  );
  assertEquals([...tokens as Map<string, string>], [
    ["https://a.example", "tokenA"],
    ["http://a.example", "tokenB"],
  ]);
  assertEquals(parseClientTokens("\n volcast_secret \n"), "volcast_secret");
  for (
    const wrong of [
      "",
      "# none\n",
      "a b",
      "https://a.example volcast_secret c",
      "volcast_secret\nvolcast_secret2",
      "https://a.example volcast_secret\nvolcast_secret2",
      "https://a.example volcast_secret\nhttps://a.example/ volcast_secret2",
      "https://a.example vol\u00e9cast_secret",
    ]
  ) {
    const error = assertThrows(() => parseClientTokens(wrong), VolcastError);
    assert(!/secret/.test(error.message + error.hint), error.message);
  }
  assertThrows(() => checkToken("se cret\n", "VOLCAST_TOKEN"), VolcastError, "VOLCAST_TOKEN");
});

test("without the header of HTTP/1 the host's name is that of the URL, as over HTTP/2", () => {
  const access = new Access({ tokens: {}, loopback: true });
  const promote = (url: string) =>
    access.admit(new Request(url, { method: "POST" }), ROUTE_TABLE["POST /promote"], []);
  promote("https://127.0.0.1:8080/promote");
  promote("https://[::1]:8080/promote");
  assertThrows(() => promote("https://evil.example/promote"), VolcastError, "'evil.example'");
});

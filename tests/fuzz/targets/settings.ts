/**
 * Files of settings: tokens of servers and of clients, keys, certificates. One that is damaged is refused
 * without a word of what may be a secret, and one that is taken means what it says.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { CommandCredentials } from "../../../src/cli/credentials.ts";
import { addToken, readTokenFile } from "../../../src/cli/token_file.ts";
import { readKey, readSeal, readTrust } from "../../../src/cli/trust.ts";
import {
  digestOf,
  type KnownToken,
  parseClientTokens,
  TlsIdentity,
  tokenLine,
} from "../../../src/http/mod.ts";
import { TokenSet } from "../../../src/http/tokens.ts";
import { generateKeys } from "../../../src/replication/mod.ts";
import { Authority } from "../../helpers/certificates.ts";
import { applySteps, byteStep, joined } from "../mutate.ts";
import type { Input, Target } from "../target.ts";
import type { Watch } from "../watch.ts";

const SECRET = `volcast_${"s3cr3t".repeat(7)}`;
const ENCODER = new TextEncoder();
const KINDS = ["tokens", "client tokens", "public keys", "key", "seal", "certificate"] as const;
type Kind = typeof KINDS[number];
type Files = Readonly<Record<Kind, Uint8Array>>;

/** Lines that nobody writes on purpose. */
const LINES = [
  "",
  " ",
  "#",
  "\u0000",
  "\ufeff",
  "\r",
  SECRET,
  "constructor admin sha256:" + "0".repeat(64),
  "__proto__ read site=__proto__ sha256:" + "1".repeat(64),
  "a read,read site= sha256:" + "2".repeat(64),
  `a ${"read,".repeat(2000)}read sha256:${"3".repeat(64)}`,
  "http://127.0.0.1:1 " + SECRET,
  "http:// " + SECRET,
  "-----BEGIN CERTIFICATE-----",
  "-----BEGIN PRIVATE KEY-----",
  "-----END PRIVATE KEY-----",
  "{",
];

/** See the module. */
export const settings: Target = {
  name: "settings",
  limits: { work: 10_000, arrayBytes: 9 * 2 ** 20, totalBytes: 256 * 2 ** 20 },
  async prepare() {
    const directory = await Deno.makeTempDir({ prefix: "volcast-fuzz-" });
    // The same every time, but for the bytes of keys and signatures.
    const authority = await Authority.make(directory);
    const { cert, key } = await authority.issue("server");
    const files = filesOf(Deno.readFileSync(cert));
    return {
      make(random) {
        const kind = random.pick(KINDS);
        const { length } = files[kind];
        return [
          { op: "file", kind },
          ...Array.from(
            { length: random.pick([1, 1, 2, 4]) },
            () =>
              random.oneIn(3)
                ? { op: "line", at: random.below(length + 1), text: random.pick(LINES) }
                : byteStep(random, length),
          ),
        ];
      },
      run: (input, watch) => run(directory, key, files, input, watch),
      close: () => Deno.remove(directory, { recursive: true }),
    };
  },
};

function filesOf(certificate: Uint8Array): Files {
  const { privateText, publicText } = generateKeys();
  const line = (token: Omit<KnownToken, "digest">, of: string) =>
    tokenLine({ ...token, digest: digestOf(of) });
  const texts = {
    "tokens": [
      "# of a server",
      line({ name: "paris", scopes: ["replicate"], site: "paris" }, SECRET),
      line({ name: "ci", scopes: ["read", "write"] }, "another"),
      "",
    ].join("\n"),
    "client tokens": `http://127.0.0.1:1 ${SECRET}\nhttps://b.example volcast_b\n`,
    "public keys": `# the origin\n${publicText}`,
    "key": privateText,
    "seal": JSON.stringify({ seal: Buffer.alloc(200, 7).toString("base64") }),
  };
  const bytes = Object.entries(texts).map(([kind, text]) => [kind, ENCODER.encode(text)]);
  return { ...Object.fromEntries(bytes), certificate } as Files;
}

async function run(
  directory: string,
  tlsKey: string,
  files: Files,
  input: Input,
  watch: Watch,
): Promise<void> {
  const kind = (input.find(({ op }) => op === "file")?.kind ?? "tokens") as Kind;
  const bytes = changed(files[kind], input);
  const path = `${directory}/file`;
  Deno.writeFileSync(path, bytes, { mode: 0o600 });
  await watch.attempt(kind, async () => {
    try {
      await use(kind, path, tlsKey, watch);
    } catch (error) {
      if (String(error).includes("s3cr3t")) watch.problem(`It tells a secret: ${error}`);
      throw error;
    }
  });
  // What changes a file of tokens leaves a damaged one as it is, and adds to a good one.
  if (kind !== "tokens") return;
  const token = { name: "new", scopes: ["admin"] as const, digest: digestOf("new") };
  const added = await watch.attempt("add a token", () => (addToken(path, token), true));
  const after = Deno.readFileSync(path);
  if (added === undefined && !after.every((byte, at) => byte === bytes[at])) {
    watch.problem("A file that was refused is changed");
  }
  if (added) checkTokens(readTokenFile(path), "new", watch);
}

function changed(bytes: Uint8Array, input: Input): Uint8Array<ArrayBuffer> {
  let result = Uint8Array.from(bytes);
  for (const step of input) {
    if (step.op !== "line") result = applySteps(result, [step]);
    else {
      const at = Math.min(Number(step.at), result.length);
      const line = ENCODER.encode(`\n${step.text}\n`);
      result = joined(result.subarray(0, at), line, result.subarray(at));
    }
  }
  return result;
}

async function use(kind: Kind, path: string, tlsKey: string, watch: Watch): Promise<void> {
  using credentials = new CommandCredentials({}, () => {}, () => undefined);
  if (kind === "tokens") checkTokens(readTokenFile(path), undefined, watch);
  else if (kind === "public keys") readTrust(path);
  else if (kind === "key") readKey(path);
  else if (kind === "seal") await readSeal(path, credentials);
  else if (kind === "certificate") {
    new TlsIdentity({ cert: path, key: tlsKey }, { log: () => {} });
  } else {
    const tokens = parseClientTokens(Deno.readTextFileSync(path));
    if (typeof tokens === "string") return;
    for (const origin of tokens.keys()) {
      if (new URL(origin).origin !== origin) watch.problem(`A token for '${origin}', no server's`);
    }
  }
}

/** Every secret opens what its line says, and one of nobody nothing. */
function checkTokens(tokens: readonly KnownToken[], added: string | undefined, watch: Watch): void {
  const set = new TokenSet(tokens);
  for (const secret of ["", "nobody's", "undefined"]) {
    if (set.find(secret) !== undefined) watch.problem(`'${secret}' opens something`);
  }
  if (added !== undefined && set.find(added)?.name !== added) watch.problem("A new token is lost");
  for (const token of tokens) {
    if (token.scopes.length === 0) watch.problem(`'${token.name}' is good for nothing`);
    const line = tokenLine(token);
    watch.spend(1, "a token");
    if (!/^[^\s#]\S* [a-z,]+( site=\S+)? sha256:[0-9a-f]{64}$/.test(line)) {
      watch.problem(`A token with the line ${line}`);
    }
  }
}

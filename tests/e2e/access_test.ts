import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Authority, subjectShownAt } from "../helpers/certificates.ts";
import { run, Server, TempDirectory, until, volcast } from "./harness.ts";

/** Everything that was said by anybody, to look for secrets in it at the end. */
class Heard {
  readonly texts: string[] = [];

  /** Keeps a text and gives it back. */
  keep(text: string): string {
    this.texts.push(text);
    return text;
  }

  async volcast(args: readonly string[], options: Parameters<typeof volcast>[1] = {}) {
    const result = await volcast(args, options);
    this.keep(result.stdout);
    this.keep(result.stderr);
    return result;
  }
}

/** Answers over TLS, by an authority of one's own. */
class Asking implements Disposable {
  readonly #heard: Heard;
  readonly #client: Deno.HttpClient;

  constructor(heard: Heard, authority: string) {
    this.#heard = heard;
    this.#client = Deno.createHttpClient({ caCerts: [Deno.readTextFileSync(authority)] });
  }

  async get(
    url: string,
    token?: string,
    init: RequestInit = {},
  ): Promise<{ status: number; text: string }> {
    const headers: Record<string, string> = token === undefined
      ? {}
      : { authorization: `Bearer ${token}` };
    const response = await fetch(url, { ...init, headers, client: this.#client });
    this.#heard.keep(JSON.stringify([...response.headers]));
    return { status: response.status, text: this.#heard.keep(await response.text()) };
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

Deno.test("a private hierarchy over TLS: tokens are made, rotated and revoked, certificates renewed, nothing restarted, no secret said", async () => {
  using directory = new TempDirectory();
  const file = (name: string) => directory.file(name);
  const heard = new Heard();
  const authority = await Authority.make(directory.path);
  const [first, second] = [await authority.issue("first"), await authority.issue("second")];
  using asking = new Asking(heard, authority.path);
  const ca = ["--ca-file", authority.path];

  const secrets: string[] = [];
  const create = async (name: string, scope: string, ...more: string[]) => {
    const args = ["token", "create", name, "--scope", scope, "--into", file("tokens"), ...more];
    const { stdout, stderr } = await volcast(args);
    heard.keep(stderr);
    const token = stdout.trim();
    Deno.writeTextFileSync(file(`${name}.token`), stdout, { mode: 0o600 });
    secrets.push(token);
    return token;
  };
  Deno.mkdirSync(file("tree"));
  Deno.writeTextFileSync(file("tree/a"), "one");
  const volume = file("site.vol");
  await heard.volcast(["init", volume, "--size", "16MiB"]);
  await heard.volcast(["publish", volume, file("tree"), "--as", "june3"]);
  const paris = await create("paris", "replicate", "--site", "paris");
  const ci = await create("ci", "read,write");

  const serving = ["--private", "--tokens", file("tokens"), "--tls-cert", first.cert];
  await using origin = await Server.start([volume, ...serving, "--tls-key", first.key]);
  assert(origin.url.startsWith("https://"), origin.url);
  Deno.writeTextFileSync(file("parents"), `${origin.url} ${paris}\n`, { mode: 0o600 });
  const site = [
    file("paris.vol"),
    "--site",
    "paris",
    "--parent",
    origin.url,
    "--every",
    "1h",
    ...ca,
  ];
  await using below = await Server.start([
    ...[...site, "--token-file", file("parents"), "--private", "--tokens", file("tokens")],
    ...["--tls-cert", second.cert, "--tls-key", second.key],
  ]);

  // Whole way: an editor publishes at the origin, and a reader reads at the site.
  const publish = (release: string, token: string, code = 0) =>
    heard.volcast(
      ["publish", origin.url, file("tree"), "--as", release, ...ca, "--token-file", token],
      { code },
    );
  Deno.writeTextFileSync(file("tree/a"), "two");
  await publish("june5", file("ci.token"));
  await until(
    "paris has june5",
    async () => (await asking.get(`${below.url}/files/a`, ci)).text === "two",
  );
  const sites = await asking.get(`${origin.url}/sites`, paris);
  assertStringIncludes(sites.text, '"paris"');
  assertEquals((await asking.get(`${below.url}/files/a`)).status, 401);
  assertEquals((await asking.get(`${below.url}/files/a`, paris)).status, 403);
  assertEquals((await asking.get(`${below.url}/healthz`)).text, "ok\n");

  // No volcast at the other end.
  Deno.writeTextFileSync(file("header"), `authorization: Bearer ${paris}\n`);
  const curl = ["curl", "-sS", "--cacert", authority.path, "-o", file("june5.img")];
  const got = await run([
    ...curl,
    "-H",
    `@${file("header")}`,
    `${below.url}/replicate?since=master`,
  ]);
  assertEquals([got.code, got.stderr], [0, ""]);
  assertStringIncludes(
    (await heard.volcast(["apply", file("copy.vol"), file("june5.img")])).stdout,
    "june5",
  );
  // Not believed without the authority, and without a token not let in.
  const site2 = ["pull", file("rome.vol"), "--site", "rome", "--parent", origin.url];
  assertStringIncludes((await heard.volcast(site2, { code: 1 })).stderr, "--ca-file");
  const denied = await heard.volcast([...site2, ...ca], { code: 1 });
  assertStringIncludes(denied.stderr, "'replicate'");

  // Rotated: the new token works, the old one ends, and nobody was restarted.
  const ci2 = await create("ci2", "read,write");
  await until(
    "the new token is known",
    async () => (await asking.get(`${origin.url}/files/a`, ci2)).status === 200,
  );
  await heard.volcast(["token", "revoke", "ci", "--from", file("tokens")]);
  await until(
    "the old token is not",
    async () => (await asking.get(`${origin.url}/files/a`, ci)).status === 401,
  );
  await publish("june6", file("ci.token"), 1);
  await publish("june6", file("ci2.token"));

  // Damaged: those read before count, and it is said.
  const good = Deno.readTextFileSync(file("tokens"));
  Deno.writeTextFileSync(file("tokens"), "");
  origin.process.kill("SIGHUP");
  await until("the damage is told", () => /going on with those read before/.test(origin.log));
  assertEquals((await asking.get(`${origin.url}/files/a`)).status, 401);
  assertEquals((await asking.get(`${origin.url}/files/a`, ci)).status, 401);
  assertStringIncludes((await asking.get(`${origin.url}/status`, ci2)).text, "cannot be read");
  Deno.writeTextFileSync(file("tokens"), good);
  origin.process.kill("SIGHUP");
  await until(
    "it is good again",
    async () => (await asking.get(`${origin.url}/status`, ci2)).text.includes('"tokenFile":"good"'),
  );

  // A renewed certificate.
  assertEquals(await subjectShownAt(origin.url), "first");
  Deno.copyFileSync(second.key, first.key);
  Deno.copyFileSync(second.cert, first.cert);
  origin.process.kill("SIGHUP");
  await until(
    "the new certificate is shown",
    async () => await subjectShownAt(origin.url) === "second",
  );
  // A connection of before may have ended while this one was on its way to it.
  await until("it answers", async () => {
    try {
      return (await asking.get(`${origin.url}/files/a`, ci2)).text === "two";
    } catch {
      return false;
    }
  });

  // Nothing that was said or can be looked up has a secret in it.
  for (const path of ["/status", "/metrics", "/sites", "/snapshots"]) {
    await asking.get(`${below.url}${path}`, ci2);
  }
  for (const { process } of [origin, below]) {
    for (const name of ["cmdline", "environ"]) {
      heard.keep(Deno.readTextFileSync(`/proc/${process.pid}/${name}`));
    }
  }
  await Promise.all([below.stop(), origin.stop()]);
  heard.keep(origin.log);
  heard.keep(below.log);
  heard.keep(good);
  for (const text of heard.texts) {
    for (const secret of secrets) {
      assert(!text.includes(secret) && !text.includes(secret.slice(8, 30)), text);
    }
  }
  assert(heard.texts.length > 50, String(heard.texts.length));
  await heard.volcast(["fsck", file("paris.vol")]);
});

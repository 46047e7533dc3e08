import { assert, assertEquals } from "@std/assert";
import { accessOf } from "../../src/cli/server_access.ts";
import { fails, inDirectory, ok } from "../helpers/cli.ts";
import { test } from "../helpers/strict.ts";

test("serve does not start with files of tokens or certificates that are not as they should be", () =>
  inDirectory(async (directory) => {
    const [volume, tokens] = [`${directory}/site.vol`, `${directory}/tokens`];
    await ok("init", volume, "--size", "1MiB");
    const refused = (says: RegExp, ...args: string[]) =>
      fails(2, says, "serve", volume, "--listen", "127.0.0.1:0", ...args);
    await refused(/there is no such file/, "--tokens", tokens);
    Deno.writeTextFileSync(tokens, "");
    await refused(/it is empty/, "--tokens", tokens);
    Deno.writeTextFileSync(tokens, "# none\n");
    await refused(/there is none/, "--tokens", tokens);
    await refused(/--tls-cert without --tls-key/, "--tls-cert", tokens);
    await refused(/--tls-key without --tls-cert/, "--tls-key", tokens);
    await refused(/certificate/i, "--tls-cert", tokens, "--tls-key", tokens);
  }));

test("a server whose tokens can be heard on the way says so once, and says it of no other", () =>
  inDirectory(async (directory) => {
    const tokens = `${directory}/tokens`;
    await ok("token", "create", "ci", "--scope", "write", "--into", tokens);
    const said = (hostname: string) => {
      const log: string[] = [];
      accessOf({ listen: { hostname, port: 0 }, tokens }, (text) => log.push(text));
      return log;
    };
    assertEquals(said("127.0.0.1"), []);
    const [text, ...more] = said("0.0.0.0");
    assert(/^Tokens travel in the clear: 0\.0\.0\.0/.test(text) && more.length === 0, text);
  }));

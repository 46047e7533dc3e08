import { assert, assertEquals } from "@std/assert";
import { messageOf, VolcastError, withoutSecrets } from "../../src/core/mod.ts";

Deno.test("withoutSecrets takes out what stands where secrets stand", () => {
  for (
    const [text, shown] of [
      ["http://user:pass@host:80/x", "http://***@host:80/x"],
      ["HTTPS://user:p@ss:w@host", "HTTPS://***@host"],
      ["from http://token@[::1]:8080, again", "from http://***@[::1]:8080, again"],
      ["http://a:80,http://u:p@b/", "http://a:80,http://***@b/"],
      ["x?at=june3&token=abc%20def&b=1", "x?at=june3&token=***&b=1"],
      ["/x?X-Amz-Signature=0af&X-Amz-Date=1", "/x?X-Amz-Signature=***&X-Amz-Date=1"],
      ["?access_token=s3 rest", "?access_token=*** rest"],
      ["Authorization: Bearer abc", "Authorization: Bearer ***"],
      ['{"authorization":"Basic dXNlcjpwYXNz"}', '{"authorization":"Basic ***"}'],
      ["sent Bearer 0123456789abcdef", "sent Bearer ***"],
    ]
  ) {
    assertEquals(withoutSecrets(text), shown);
  }
});

Deno.test("withoutSecrets leaves what is no secret as it is", () => {
  for (
    const text of [
      "Cannot do this: it needs a bearer token",
      "Set VOLCAST_TOKEN at the server and at the client, or listen on 127.0.0.1",
      "Cannot reach http://127.0.0.1:8080: connection refused",
      "Pulled 'june@5' (5-097ccbec) from http://127.0.0.1:8481/: increment",
      "GET /replicate?since=master&site=paris&snapshots=4..9",
      "user@host of http://host/a@b",
      "Basic understanding and Bearer tokens",
    ]
  ) assertEquals(withoutSecrets(text), text);
});

Deno.test("no error's message has a secret, wherever it came from", () => {
  const error = new VolcastError("io", "Cannot reach http://u:hunter2@h", "Try ?token=hunter2");
  assert(!`${error.message} ${error.hint} ${error.stack}`.includes("hunter2"));
  assert(!messageOf(new TypeError("url (http://h/x?token=hunter2)")).includes("hunter2"));
});

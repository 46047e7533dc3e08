import { assertEquals, assertThrows } from "@std/assert";
import { assert, damaged, divCeil, messageOf, VolcastError } from "../../src/core/mod.ts";
import { test } from "../helpers/strict.ts";

test("VolcastError carries kind, hint and cause", () => {
  const cause = new Error("below");
  const error = new VolcastError("held", "Cannot do it: it is held", "Let go", { cause });
  assertEquals([error.name, error.kind, error.hint], ["VolcastError", "held", "Let go"]);
  assertEquals(error.cause, cause);
  assertEquals(new VolcastError("io", "Cannot").hint, "");
  assertEquals([damaged("Cannot read", "Look").kind, damaged("Cannot read", "Look").hint], [
    "damaged",
    "Look",
  ]);
});

test("messageOf gives the text of whatever was thrown", () => {
  assertEquals(messageOf(new Error("a")), "a");
  assertEquals(messageOf("b"), "b");
  assertEquals(messageOf(undefined), "undefined");
});

test("assert stops, divCeil rounds up", () => {
  assert(true, "fine");
  assertThrows(() => assert(false, "broken"), Error, "broken");
  assertEquals([divCeil(0, 5), divCeil(1, 5), divCeil(5, 5), divCeil(6, 5)], [0, 1, 1, 2]);
});

import { assert, assertEquals } from "@std/assert";
import { BYTE_SIZE, DURATION_MS, showBytes, showExactBytes } from "../../src/cli/units.ts";
import { fields, showMode, showName, showTime, table } from "../../src/cli/text.ts";
import { test } from "../helpers/strict.ts";

test("BYTE_SIZE reads all units, in any case, and plain bytes", () => {
  const sizes: [string, number][] = [
    ["0", 0],
    ["1048576", 2 ** 20],
    ["17b", 17],
    ["64K", 65536],
    ["64KiB", 65536],
    ["1.5m", 1.5 * 2 ** 20],
    ["512 MiB", 2 ** 29],
    ["4GiB", 2 ** 32],
    ["4g", 2 ** 32],
    ["16TiB", 2 ** 44],
  ];
  for (const [text, size] of sizes) assertEquals(BYTE_SIZE.parse(text), size, text);
});

test("BYTE_SIZE refuses what is not a size", () => {
  for (const text of ["", "G", "-1", "1e9", "4GB", "4 GiB x", "0x10", "9999999999TiB", "١"]) {
    const result = BYTE_SIZE.safeParse(text);
    assert(!result.success, text);
    assert(/4GiB/.test(result.error!.issues[0].message), text);
  }
});

test("DURATION_MS reads all units", () => {
  const durations: [string, number][] = [
    ["0s", 0],
    ["500ms", 500],
    ["30s", 30_000],
    ["1.5s", 1500],
    ["10min", 600_000],
    ["24h", 86_400_000],
    ["7d", 604_800_000],
  ];
  for (const [text, ms] of durations) assertEquals(DURATION_MS.parse(text), ms, text);
});

test("DURATION_MS refuses what is not a duration, or longer than a timer takes", () => {
  for (const text of ["", "30", "s", "-1s", "10 minutes", "1e3s", "5m"]) {
    assert(!DURATION_MS.safeParse(text).success, text);
  }
  const long = DURATION_MS.safeParse("99d");
  assert(!long.success && /limit is 24d/.test(long.error!.issues[0].message));
});

test("showBytes is short, showExactBytes has both", () => {
  assertEquals([0, 17, 1024, 1536, 2 ** 32].map(showBytes), [
    "0 B",
    "17 B",
    "1 KiB",
    "1.5 KiB",
    "4 GiB",
  ]);
  assertEquals(showExactBytes(1000), "1000 bytes");
  assertEquals(showExactBytes(1572864), "1572864 bytes (1.5 MiB)");
});

test("table and fields align, with nothing at the ends of lines", () => {
  const columns = [{ head: "NAME" }, { head: "SIZE", align: "right" as const }, { head: "NOTE" }];
  assertEquals(
    table(columns, [["a", "1000", ""], ["longer", "2", "x"]]),
    "NAME    SIZE  NOTE\na       1000\nlonger     2  x",
  );
  assertEquals(fields([["a", "1"], ["none", undefined], ["bc", ""]]), "a   1\nbc");
});

test("showName shows what would steer a terminal", () => {
  assertEquals(showName("a\x1b[2Jb\n\u009bé"), "a\\x1b[2Jb\\x0a\\x9bé");
});

test("showTime keeps nanoseconds, also before 1970 and far away", () => {
  assertEquals(showTime(0n), "1970-01-01T00:00:00Z");
  assertEquals(showTime(1_000_000_001n), "1970-01-01T00:00:01.000000001Z");
  assertEquals(showTime(-1n), "1969-12-31T23:59:59.999999999Z");
  assertEquals(showTime(-(2n ** 63n)), "1677-09-21T00:12:43.145224192Z");
});

test("showMode is as in ls", () => {
  const modes: [number, string][] = [
    [0o100644, "-rw-r--r--"],
    [0o040755, "drwxr-xr-x"],
    [0o120777, "lrwxrwxrwx"],
    [0o104755, "-rwsr-xr-x"],
    [0o102644, "-rw-r-Sr--"],
    [0o041777, "drwxrwxrwt"],
    [0o020600, "crw-------"],
    [0o060600, "brw-------"],
    [0o010600, "prw-------"],
    [0o140600, "srw-------"],
  ];
  for (const [mode, text] of modes) assertEquals(showMode(mode), text);
});

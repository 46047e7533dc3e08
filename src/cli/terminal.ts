/**
 * What a command says to its user: results on standard output, everything else on standard error,
 * progress only where somebody watches.
 *
 * @module
 */

import { VolcastError, withoutSecrets } from "../core/mod.ts";
import { hostError } from "../store/mod.ts";
import { showBytes } from "./units.ts";

/** Work is shown as a bar only after this many ms. */
const PROGRESS_AFTER_MS = 1000;
const PROGRESS_EVERY_MS = 100;

/** A progress display. */
export interface Progress {
  /** @param total Absent while it is not known. */
  update(done: number, total?: number): void;
  /** Removes the bar. */
  end(): void;
}

/** See the module. */
export class Terminal {
  /** Prints a result. */
  print(text: string): void {
    writeAll(Deno.stdout, new TextEncoder().encode(text + "\n"));
  }

  /** Prints a result as JSON; bigints as numbers in text. */
  printJson(value: unknown): void {
    this.print(
      JSON.stringify(value, (_, item) => typeof item === "bigint" ? item.toString() : item, 2),
    );
  }

  /** Prints a remark that is not the result. Secrets are taken out. */
  note(text: string): void {
    say(withoutSecrets(text) + "\n");
  }

  /** Writes bytes of a result. */
  write(bytes: Uint8Array): void {
    writeAll(Deno.stdout, bytes);
  }

  /** A bar on standard error, if that is a terminal and the work takes over a second. */
  progress(label: string, unit: "bytes" | "count" = "bytes"): Progress {
    if (!Deno.stderr.isTerminal()) return { update() {}, end() {} };
    const begin = performance.now();
    const show = (value: number) => unit === "bytes" ? showBytes(value) : String(value);
    let last = 0;
    let shown = false;
    return {
      update(done: number, total?: number): void {
        const now = performance.now();
        if (now - begin < PROGRESS_AFTER_MS || now - last < PROGRESS_EVERY_MS) return;
        last = now;
        shown = true;
        const rate = unit === "bytes" ? `  ${showBytes(done / ((now - begin) / 1000))}/s` : "";
        const bar = total === undefined || total === 0 ? "" : ` ${barOf(done / total)}`;
        const of = total === undefined ? "" : ` of ${show(total)}`;
        say(`\r\x1b[K${label}${bar} ${show(done)}${of}${rate}`);
      },
      end(): void {
        if (shown) say("\r\x1b[K");
      },
    };
  }
}

function barOf(fraction: number): string {
  const filled = Math.round(Math.min(1, fraction) * 24);
  return `[${"#".repeat(filled)}${".".repeat(24 - filled)}]`;
}

/** Writes to standard error; that nobody listens there is no reason to fail. */
function say(text: string): void {
  try {
    writeAll(Deno.stderr, new TextEncoder().encode(text));
  } catch {
    // It was a remark only.
  }
}

function writeAll(target: { writeSync(bytes: Uint8Array): number }, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) {
    try {
      done += target.writeSync(bytes.subarray(done));
    } catch (error) {
      // Whoever read it has enough; see how errors are reported.
      if (error instanceof Deno.errors.BrokenPipe) throw error;
      if (!(error instanceof Deno.errors.WouldBlock)) {
        throw hostError("Cannot write the output", error);
      }
      // Some of the bytes may have gone, nobody knows how many: going on could write them twice.
      throw new VolcastError(
        "io",
        "Cannot write the output: it is full and does not block",
        "Put a pipe between: volcast ... | cat",
      );
    }
  }
}

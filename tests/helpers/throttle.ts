/**
 * Slow devices: a control group in which a process reads each of some block devices at a given rate.
 *
 * @module
 */

import { deviceTest, whyNoLoopDevices, withDevice } from "./loop_devices.ts";

const ROOT = "/sys/fs/cgroup";

/** A control group; processes are put into it by {@linkcode Throttle.command}. */
export class Throttle implements Disposable {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /**
   * Makes one.
   * @param devices `MAJOR:MINOR` of each. @throws Where the host has no such control.
   */
  static of(devices: readonly string[], bytesPerSecond: number): Throttle {
    const isOld = exists(`${ROOT}/blkio`);
    const parent = isOld ? `${ROOT}/blkio` : ROOT;
    if (!isOld) Deno.writeTextFileSync(`${parent}/cgroup.subtree_control`, "+io");
    const path = `${parent}/volcast-${crypto.randomUUID()}`;
    Deno.mkdirSync(path);
    const throttle = new Throttle(path);
    try {
      for (const device of devices) {
        if (isOld) {
          const file = `${path}/blkio.throttle.read_bps_device`;
          Deno.writeTextFileSync(file, `${device} ${bytesPerSecond}`);
        } else Deno.writeTextFileSync(`${path}/io.max`, `${device} rbps=${bytesPerSecond}`);
      }
      return throttle;
    } catch (error) {
      throttle[Symbol.dispose]();
      throw error;
    }
  }

  /** The command that runs another one under the limits. */
  command(command: readonly string[]): string[] {
    const enter = 'echo $$ > "$0" && exec "$@"';
    return ["sh", "-c", enter, `${this.#path}/cgroup.procs`, ...command];
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.#path);
  }
}

/** Registers a test that needs slow devices; where there are none it is ignored, and says why. */
export async function throttleTest(
  name: string,
  fn: (directory: string) => Promise<void>,
): Promise<void> {
  deviceTest(name, fn, await whyNoLoopDevices() ?? await whyNoThrottle());
}

async function whyNoThrottle(): Promise<string | undefined> {
  const directory = await Deno.makeTempDir({ prefix: "volcast-throttle-" });
  try {
    return await withDevice(directory, "probe", 2 ** 20, ({ number }) => {
      Throttle.of([number], 2 ** 20)[Symbol.dispose]();
      return Promise.resolve(undefined);
    });
  } catch (error) {
    return `no control of reading here: ${error instanceof Error ? error.message : error}`;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/**
 * rsync: a daemon to pull from, and local copies.
 *
 * @module
 */

import { freePort, must, Service } from "../process.ts";
import { pathOf } from "../programs.ts";

/** Serves directories at loopback, a module each. */
export async function startRsyncDaemon(
  directory: string,
  modules: Readonly<Record<string, string>>,
): Promise<Service> {
  const port = freePort();
  const sections = Object.entries(modules).map(([name, path]) =>
    `[${name}]\npath = ${path}\nread only = yes\n`
  );
  // Root must not give its rights up, or it could not read what it made.
  const identity = Deno.uid() === 0 ? "uid = root\ngid = root\n" : "";
  const config = `${directory}/rsyncd.conf`;
  Deno.writeTextFileSync(
    config,
    `use chroot = no\naddress = 127.0.0.1\nlog file = /dev/null\n${identity}${sections.join("")}`,
  );
  return await Service.start(
    [pathOf("rsync")!, "--daemon", "--no-detach", `--config=${config}`, `--port=${port}`],
    port,
  );
}

/** Makes `target` what a module of a daemon is. @param options Further ones of rsync. */
export async function rsyncPull(
  source: { readonly port: number },
  module: string,
  target: string,
  options: readonly string[] = [],
): Promise<void> {
  const url = `rsync://127.0.0.1:${source.port}/${module}/`;
  await must([pathOf("rsync")!, "-a", "--delete", ...options, url, `${target}/`]);
}

/** Makes `target` what `source` is, on this host. */
export async function rsyncCopy(source: string, target: string): Promise<void> {
  await must([pathOf("rsync")!, "-a", "--delete", `${source}/`, `${target}/`]);
}

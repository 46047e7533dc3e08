/**
 * Servers of files: nginx with one worker, and caddy's file-server.
 *
 * @module
 */

import { freePort, Service } from "../process.ts";
import { pathOf } from "../programs.ts";

/** Serves a directory by nginx. @param scratch Directory for what nginx writes. */
export async function startNginx(scratch: string, root: string): Promise<Service> {
  const port = freePort();
  const config = `${scratch}/nginx.conf`;
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${scratch}/nginx-${name};`).join("\n");
  Deno.writeTextFileSync(
    config,
    `daemon off;
worker_processes 1;
pid ${scratch}/nginx.pid;
error_log ${scratch}/nginx.log;
${Deno.uid() === 0 ? "user root;" : ""}
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  ${temporary}
  server { listen 127.0.0.1:${port}; root ${root}; }
}
`,
  );
  const log = `${scratch}/nginx.log`;
  return await Service.start([pathOf("nginx")!, "-c", config, "-p", scratch, "-e", log], port);
}

/** Serves a directory by caddy. */
export async function startCaddy(scratch: string, root: string): Promise<Service> {
  const port = freePort();
  const listen = `127.0.0.1:${port}`;
  return await Service.start(
    [pathOf("caddy")!, "file-server", "--root", root, "--listen", listen],
    port,
    { HOME: scratch, XDG_DATA_HOME: scratch, XDG_CONFIG_HOME: scratch },
  );
}

/**
 * Certificates made by openssl, of an authority of their own.
 *
 * @module
 */

/** A certificate with its key, as files. */
export interface CertificateFiles {
  readonly cert: string;
  readonly key: string;
}

/** An authority whose files lie in a directory. */
export class Authority {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Makes one. @param directory Gets all files. */
  static async make(directory: string): Promise<Authority> {
    const authority = new Authority(directory);
    await openssl(
      ...["req", "-x509", ...KEY, "-days", "2", "-subj", "/CN=volcast test authority"],
      ...["-keyout", `${directory}/ca.key`, "-out", authority.path],
    );
    return authority;
  }

  /** Its certificate. */
  get path(): string {
    return `${this.#directory}/ca.pem`;
  }

  /** Makes a certificate for 127.0.0.1 and localhost. */
  async issue(name: string): Promise<CertificateFiles> {
    const path = `${this.#directory}/${name}`;
    await Deno.writeTextFile(`${path}.ext`, "subjectAltName=IP:127.0.0.1,DNS:localhost\n");
    await openssl(
      ...["req", ...KEY, "-subj", `/CN=${name}`],
      ...["-keyout", `${path}.key`, "-out", `${path}.csr`],
    );
    await openssl(
      ...["x509", "-req", "-in", `${path}.csr`, "-days", "2", "-extfile", `${path}.ext`],
      ...["-CA", this.path, "-CAkey", `${this.#directory}/ca.key`, "-CAcreateserial"],
      ...["-out", `${path}.pem`],
    );
    return { cert: `${path}.pem`, key: `${path}.key` };
  }
}

const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"] as const;

async function openssl(...args: readonly string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("openssl", {
    args: [...args],
    stdin: "null",
  }).output();
  if (!success) throw new Error(`openssl ${args.join(" ")}\n${new TextDecoder().decode(stderr)}`);
}

/** The subject of the certificate that a server shows. */
export async function subjectShownAt(url: string): Promise<string> {
  const { host } = new URL(url);
  const { stdout } = await new Deno.Command("openssl", {
    args: ["s_client", "-connect", host],
    stdin: "null",
    stderr: "null",
  }).output();
  return /subject=.*?CN\s*=\s*(\S+)/.exec(new TextDecoder().decode(stdout))?.[1] ?? "";
}

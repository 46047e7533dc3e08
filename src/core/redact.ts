/**
 * Keeping secrets out of whatever is logged, shown or answered. Every message goes through here
 * (`VolcastError`, `messageOf`, the terminal's remarks), and every name of a server.
 *
 * @module
 */

/** A scheme and what stands before the last @ of an authority. */
const USER_INFO = /(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/\\?#]*@/gi;
/** Parameters of URLs whose names say that they are secrets: tokens, keys, signatures. */
const PARAMETER =
  /([?&;][\w.%-]*(?:token|secret|passw|signature|sig|key|auth|credential|session)[\w.%-]*=)[^\s&;#'"<>()]+/gi;
/** The value of a header that carries credentials. */
const HEADER =
  /\b((?:proxy-)?authorization["']?\s*[:=]\s*["']?(?:(?:Bearer|Basic)\s+)?)[^\s"',]+/gi;
/** A scheme of authentication with what may well be a token, and no word. */
const BEARER = /\b((?:Bearer|Basic)\s+)(?=\S*[0-9A-Z=])[\w.~+/=-]{8,}/g;

/** The same text with `***` where there may have been a secret. */
export function withoutSecrets(text: string): string {
  return text.replace(USER_INFO, "$1***@").replace(PARAMETER, "$1***").replace(HEADER, "$1***")
    .replace(BEARER, "$1***");
}

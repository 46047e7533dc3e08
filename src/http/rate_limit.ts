/**
 * Requests a second of one client, by its address: a bucket that fills at the rate, and holds two
 * seconds of it.
 *
 * @module
 */

/** Seconds of the rate that may come at once. */
const BURST_S = 2;
/** Addresses that are remembered; the one that was not seen for longest goes first. */
const MAX_CLIENTS = 65_536;

/** See the module. */
export class RateLimit {
  readonly #perSecond: number;
  readonly #elapsed: () => number;
  /** Tokens as of a moment (ms), the client that was seen last at the end. */
  readonly #clients = new Map<string, { tokens: number; at: number }>();

  /** @param elapsed ms since some moment. */
  constructor(perSecond: number, elapsed: () => number = () => performance.now()) {
    this.#perSecond = perSecond;
    this.#elapsed = elapsed;
  }

  /** Counts a request. @returns Seconds until the next one may come; 0 for one that may come now. */
  take(address: string): number {
    const client = clientOf(address);
    const now = this.#elapsed();
    const most = Math.max(1, this.#perSecond * BURST_S);
    const known = this.#clients.get(client) ?? { tokens: most, at: now };
    const tokens = Math.min(most, known.tokens + (now - known.at) * this.#perSecond / 1000);
    const isAllowed = tokens >= 1;
    this.#clients.delete(client);
    this.#clients.set(client, { tokens: isAllowed ? tokens - 1 : tokens, at: now });
    if (this.#clients.size > MAX_CLIENTS) {
      this.#clients.delete(this.#clients.keys().next().value!);
    }
    return isAllowed ? 0 : (1 - tokens) / this.#perSecond;
  }
}

/** Who has an address: of IPv6 whoever has the /64, since that is what one subscriber gets. */
export function clientOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped !== null) return mapped[1];
  if (!address.includes(":")) return address;
  const [head, tail] = address.split("%")[0].split("::");
  const groups = (text: string | undefined) =>
    text === undefined || text === "" ? [] : text.split(":");
  const front = groups(head);
  const back = groups(tail);
  const zeros = Array<string>(Math.max(0, 8 - front.length - back.length)).fill("0");
  return `${[...front, ...zeros, ...back].slice(0, 4).join(":")}::/64`;
}

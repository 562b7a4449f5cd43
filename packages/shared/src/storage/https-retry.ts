/** Asking a web server again: what may pass, how long to wait for it, and when to give up. */
import { setTimeout as delay } from "node:timers/promises";
import { CapfleetError } from "../contract/errors.ts";

export const ATTEMPTS = 3;
const BACKOFF_MS = 500;
/** A server that wants more patience than this is not asked again: `capfleet retry` is for that. */
const MAX_WAIT_MS = 10_000;
const NETWORK = new Set([
  ...["ECONNREFUSED", "ECONNRESET", "EPIPE", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH"],
  ...["EAI_AGAIN", "UND_ERR_SOCKET", "UND_ERR_CONNECT_TIMEOUT", "UND_ERR_HEADERS_TIMEOUT", "UND_ERR_BODY_TIMEOUT"],
]);

/** A failure that may pass. `afterMs`: how long the server wants to be left alone. */
export class Passing extends Error {
  readonly afterMs: number | null;

  constructor(message: string, afterMs: number | null = null) {
    super(message);
    this.afterMs = afterMs;
  }
}

/** Runs `ask` until it gives something, at most ATTEMPTS times. Throws IMAGE_HTTPS_FAILED in the end, and what is no Passing at once. */
export async function retried<T>(url: string, signal: AbortSignal | undefined, ask: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (thrown) {
      if (!(thrown instanceof Passing)) throw thrown;
      const wait = thrown.afterMs ?? BACKOFF_MS * 2 ** (attempt - 1) * (0.5 + Math.random());
      const times = attempt === 1 ? "" : `, ${attempt} times`;
      if (attempt === ATTEMPTS || wait > MAX_WAIT_MS)
        throw new CapfleetError("IMAGE_HTTPS_FAILED", `${url}: ${thrown.message}${times}`);
      await delay(wait, undefined, { signal }).catch(() => signal?.throwIfAborted());
    }
  }
}

/** What the network did, as a Passing or an error with a code. */
export function networkError(thrown: unknown, url: string): unknown {
  if (thrown instanceof CapfleetError || thrown instanceof Passing) return thrown;
  const { code = "", message } = thrown as NodeJS.ErrnoException;
  const said = message?.split("\n", 1)[0] || code;
  if (NETWORK.has(code)) return new Passing(said);
  return new CapfleetError("IMAGE_HTTPS_FAILED", `${url}: ${said}`, { cause: thrown });
}

/** Milliseconds; null where the header says nothing that can be understood. */
export function retryAfter(header: string | string[] | undefined): number | null {
  if (typeof header !== "string") return null;
  const ms = /^\d+$/.test(header) ? Number(header) * 1_000 : Date.parse(header) - Date.now();
  return Number.isNaN(ms) ? null : Math.max(ms, 0);
}

/**
 * Images on the web. Their URLs are strangers': whoever writes a manifest must not learn through a worker what only the
 * worker can reach. So the operator names the hosts, and what is connected to is an address that was looked at:
 *
 *   URL → host allowed? → address public? (as the connection is made; for each redirect anew) → retries → bytes
 *
 * What a server of others does wrong is the row's error, never the shard's.
 */
import type { Dispatcher } from "undici";
import { CapfleetError } from "../contract/errors.ts";
import { CAPFLEET_VERSION } from "../contract/job.ts";
import { type GuardSettings, HttpsGuard } from "./https-guard.ts";
import { networkError, Passing, retried, retryAfter } from "./https-retry.ts";

export interface HttpsSettings extends GuardSettings {
  /** The largest image, in bytes. */
  maxBytes: number;
  /** Certificates to trust instead of the usual ones. */
  ca?: string;
  /** How long a server may take to accept; default 5,000. */
  connectMs?: number;
  /** How long it may take to answer, and for the next bytes; default 20,000. */
  stallMs?: number;
  /** How long the body may take in all: a server that drips must not hold a place for hours. Default 120,000. */
  bodyMs?: number;
}

const MAX_REDIRECTS = 5;
/** Connections to one host. Somewhat more than a browser's. */
const SOCKETS = 16;
const HEADERS = {
  "user-agent": `capfleet/${CAPFLEET_VERSION} (labels images)`,
  accept: "image/*, */*;q=0.1",
  "accept-encoding": "identity",
};

export class HttpsSource {
  readonly guard: HttpsGuard;
  readonly #settings: HttpsSettings;
  #dispatcher: Promise<Dispatcher> | undefined;

  constructor(settings: HttpsSettings) {
    this.guard = new HttpsGuard(settings);
    this.#settings = settings;
  }

  /**
   * `size` is in bytes, null where the server doesn't say. The body comes as one chunk, of at most `maxBytes`; it holds a
   * connection until it has been iterated. Both throw INVALID_URI, IMAGE_HTTPS_FORBIDDEN, IMAGE_HTTPS_REFUSED,
   * IMAGE_HTTPS_FAILED, IMAGE_NOT_FOUND, IMAGE_TOO_LARGE, or the signal's reason.
   */
  async open(url: string, signal?: AbortSignal): Promise<{ body: AsyncIterable<Uint8Array>; size: number | null }> {
    let opened: Answer | null = await retried(url, signal, () => this.#get(url, signal));
    const { size } = opened;
    const read = async () => {
      const answer = opened ?? (await this.#get(url, signal));
      opened = null;
      return this.#read(answer, url, signal);
    };
    async function* body() {
      // A body that breaks off is asked for again, from its start.
      yield await retried(url, signal, read);
    }
    return { body: body(), size };
  }

  /** Ends all connections. What is under way fails. */
  close(): void {
    void this.#dispatcher?.then((dispatcher) => dispatcher.destroy());
    this.#dispatcher = undefined;
  }

  /** The answer that has the image, after redirects. Throws a Passing for what may pass. */
  async #get(given: string, signal?: AbortSignal): Promise<Answer> {
    let url = this.guard.check(given);
    this.#dispatcher ??= this.#connect();
    try {
      const dispatcher = await this.#dispatcher;
      for (let redirects = 0; ; redirects++) {
        const path = `${url.pathname}${url.search}`;
        const request = { origin: url.origin, path, method: "GET", headers: HEADERS, signal: signal ?? null } as const;
        const answer = await dispatcher.request(request);
        // An error before anybody reads would have no listener, which ends a process. Reading meets it all the same.
        answer.body.on("error", () => {});
        const { statusCode, headers } = answer;
        if (statusCode === 200) return this.#accept(answer, given);
        // To its end, so that the connection can be used again.
        await answer.body.dump({ limit: 16_384 });
        const { location } = headers;
        if (![301, 302, 303, 307, 308].includes(statusCode) || typeof location !== "string")
          throw refusal(answer, given);
        if (redirects === MAX_REDIRECTS)
          throw new CapfleetError("IMAGE_HTTPS_REFUSED", `${given}: more than ${MAX_REDIRECTS} redirects`);
        url = this.guard.follow(location, url);
      }
    } catch (thrown) {
      if (signal?.aborted) throw signal.reason;
      throw networkError(thrown, given);
    }
  }

  #accept({ headers, body }: Dispatcher.ResponseData, url: string): Answer {
    const { maxBytes } = this.#settings;
    const encoding = headers["content-encoding"] ?? "identity";
    const size = headers["content-length"] === undefined ? null : Number(headers["content-length"]);
    if (encoding === "identity" && (size ?? 0) <= maxBytes) return { body, size };
    body.destroy();
    if (encoding === "identity") throw tooLarge(url, maxBytes);
    throw new CapfleetError("IMAGE_HTTPS_REFUSED", `${url}: the server sends it in an encoding that nobody asked for`);
  }

  async #read({ body }: Answer, url: string, signal?: AbortSignal): Promise<Buffer> {
    const { maxBytes, bodyMs = 120_000 } = this.#settings;
    const slow = setTimeout(() => body.destroy(new Error(`not all of it came within ${bodyMs} ms`)), bodyMs);
    const chunks: Uint8Array[] = [];
    let size = 0;
    try {
      for await (const chunk of body as AsyncIterable<Uint8Array>) {
        size += chunk.length;
        if (size > maxBytes) throw tooLarge(url, maxBytes);
        chunks.push(chunk);
      }
      return Buffer.concat(chunks);
    } catch (thrown) {
      if (signal?.aborted) throw signal.reason;
      throw networkError(thrown, url);
    } finally {
      clearTimeout(slow);
      body.destroy();
    }
  }

  async #connect(): Promise<Dispatcher> {
    // Only where an image is on the web: it takes a command a tenth of a second to load.
    const { Agent, interceptors } = await import("undici");
    const { ca, connectMs = 5_000, stallMs = 20_000 } = this.#settings;
    const agent = new Agent({
      allowH2: false,
      connections: SOCKETS,
      headersTimeout: stallMs,
      bodyTimeout: stallMs,
      connect: { timeout: connectMs, lookup: this.guard.lookup, ...(ca !== undefined && { ca }) },
    });
    // Servers are asked not to compress images; some do it all the same.
    return agent.compose(interceptors.decompress({ skipErrorResponses: true }));
  }
}

interface Answer {
  body: Dispatcher.ResponseData["body"];
  size: number | null;
}

function refusal({ statusCode: status, headers }: Dispatcher.ResponseData, url: string): Error {
  const said = `the server answers ${status}`;
  if (status === 404 || status === 410) return new CapfleetError("IMAGE_NOT_FOUND", `${url}: ${said}`);
  if (status === 408 || status === 429 || status >= 500) return new Passing(said, retryAfter(headers["retry-after"]));
  return new CapfleetError("IMAGE_HTTPS_REFUSED", `${url}: ${said}`);
}

function tooLarge(url: string, maxBytes: number): CapfleetError {
  return new CapfleetError("IMAGE_TOO_LARGE", `${url} is larger than ${maxBytes} bytes`);
}

/** Requests to the hub as its client library makes them: with limits on waiting, and refusals as errors with a code. */
import { CapfleetError } from "../contract/errors.ts";

const ANSWER_MS = 30_000;

export class HubRequests {
  /**
   * What the last request that failed failed of. The client's streams pass on an error's message only, so that the
   * reason has to be looked up here.
   */
  failure: CapfleetError | null = null;
  readonly #endpoint: string;
  /** What is asked for, for messages. */
  readonly #what: string;
  readonly #signal: AbortSignal | undefined;

  constructor(endpoint: string, what: string, signal?: AbortSignal) {
    this.#endpoint = endpoint;
    this.#what = what;
    this.#signal = signal;
  }

  /** For the client's `fetch` parameter. Throws the signal's reason, or a CapfleetError. */
  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    const url = input instanceof Request ? input.url : String(input);
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error(`no answer for ${ANSWER_MS / 1000} s`)), ANSWER_MS);
    const signal = AbortSignal.any([late.signal, ...(this.#signal ? [this.#signal] : [])]);
    let response: Response;
    try {
      response = await fetch(input, { ...init, signal });
    } catch (thrown) {
      this.#signal?.throwIfAborted();
      this.failure = unreachable(new URL(url).origin, thrown);
      throw this.failure;
    } finally {
      clearTimeout(timer);
    }
    // What is not the hub itself (the xet store's servers) is left to the client, which has its own ways with it.
    if (response.ok || !url.startsWith(`${this.#endpoint}/`)) return response;
    this.failure = await this.#refusal(response);
    throw this.failure;
  };

  async #refusal(response: Response): Promise<CapfleetError> {
    const { status } = response;
    const host = new URL(response.url).origin;
    await response.body?.cancel();
    // Behind a redirect: a signed address of the hub's storage, which may have run out.
    if (host !== new URL(this.#endpoint).origin || status >= 500 || status === 429 || status === 408) {
      return new CapfleetError("HUB_UNREACHABLE", `${host} answers ${status} for ${this.#what}`);
    }
    const reason = response.headers.get("x-error-code");
    const why = `${host} answers ${status}${reason ? ` ${reason}` : ""} for ${this.#what}`;
    if (status === 401 || status === 403) {
      const gated =
        reason === "GatedRepo"
          ? "its terms have to be accepted on its page first"
          : "it is private, gated or not there";
      return new CapfleetError("HUB_ACCESS_DENIED", `${why}: ${gated}, or HF_TOKEN is missing or wrong`);
    }
    if (status === 404) return new CapfleetError("HUB_NOT_FOUND", `${why}: no such model, revision or file`);
    return new CapfleetError("HUB_UNREACHABLE", why);
  }
}

/** Anything that the client threw and that has no code: the network's errors, or an answer that is not the hub's. */
export function unreachable(what: string, thrown: unknown): CapfleetError {
  if (thrown instanceof CapfleetError) return thrown;
  const { message = String(thrown), cause } = (thrown ?? {}) as Partial<Error>;
  const deeper = cause instanceof Error ? ` (${cause.message || (cause as NodeJS.ErrnoException).code})` : "";
  return new CapfleetError("HUB_UNREACHABLE", `${what}: ${message}${deeper}`, { cause: thrown });
}

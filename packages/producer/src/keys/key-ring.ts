/** The keys as a producer knows them: at most two seconds old, and listed once however many requests ask. */
import type { Store } from "@capfleet/shared/storage";
import { type ApiKey, isSecretOf, listKeys, parseKey, readKey } from "./api-key.ts";

const FRESH_MS = 2_000;

interface Known {
  etag: string;
  key: ApiKey;
}

export class KeyRing {
  readonly #state: Store;
  #keys = new Map<string, Known>();
  #reading: Promise<void> | null = null;
  #readAt = Number.NEGATIVE_INFINITY;

  constructor(state: Store) {
    this.#state = state;
  }

  /** Whether there are keys. Revoked ones count: whoever revokes the last key does not mean to let everybody in. */
  async any(): Promise<boolean> {
    await this.#refresh();
    return this.#keys.size > 0;
  }

  /** Null for a key that is unknown or revoked. Throws the store's errors: what can't be checked is not let in. */
  async find(given: string): Promise<ApiKey | null> {
    await this.#refresh();
    const parsed = parseKey(given);
    const key = parsed && this.#keys.get(parsed.id)?.key;
    return key && isSecretOf(parsed.secret, key) && key.revoked === null ? key : null;
  }

  async #refresh(): Promise<void> {
    if (performance.now() - this.#readAt < FRESH_MS) return;
    this.#reading ??= this.#read().finally(() => {
      this.#reading = null;
    });
    await this.#reading;
  }

  async #read(): Promise<void> {
    const started = performance.now();
    const keys = new Map<string, Known>();
    for await (const { id, etag } of listKeys(this.#state)) {
      const known = this.#keys.get(id);
      keys.set(id, known?.etag === etag ? known : { etag, key: await readKey(id, this.#state) });
    }
    this.#keys = keys;
    this.#readAt = started;
  }
}

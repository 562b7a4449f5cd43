/** What the user wants of a job, read from object storage and remembered for a moment. */
import { type Intent, jobStateSchema, stateLayout } from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";

const REMEMBER_MS = 2_000;

export class Intents {
  readonly #state: Store;
  readonly #known = new Map<string, { at: number; intent: Promise<Intent> }>();

  constructor(state: Store) {
    this.#state = state;
  }

  /** A job whose state has been deleted counts as cancelled. Throws the store's shard errors. */
  async of(job: string): Promise<Intent> {
    const known = this.#known.get(job);
    if (known && performance.now() - known.at < REMEMBER_MS) return known.intent;
    const intent = this.#read(job);
    this.#known.set(job, { at: performance.now(), intent });
    intent.catch(() => this.#known.delete(job));
    return intent;
  }

  async #read(job: string): Promise<Intent> {
    const key = stateLayout.job(job);
    if (!(await this.#state.stat(key))) return "cancelled";
    const { bytes } = await this.#state.read(key);
    return jobStateSchema.parse(JSON.parse(bytes.toString("utf8"))).intent;
  }
}

/** How fast one worker does each kind of work: as reported lately, and before anything is, as earlier jobs have left it. */
import type { JobSpec, Timed } from "@capfleet/shared/contract";
import { engineSet } from "@capfleet/shared/queues";
import type { Store } from "@capfleet/shared/storage";
import { rateOf } from "../estimate/estimate.ts";
import { readRates } from "../estimate/rates.ts";
import { HALF_LIFE_SECONDS, Lately } from "../reconcile/lately.ts";

/** A kind of work: a task, and engines. */
type Kind = Pick<JobSpec, "task" | "engines">;

export class WorkRates {
  readonly #state: Store;
  readonly #sets = new Map<string, Map<string, Lately>>();

  constructor(state: Store) {
    this.#state = state;
  }

  /** Looks for what earlier jobs have measured, once for each kind. Throws the store's errors. */
  async recall({ task, engines }: Kind): Promise<void> {
    const set = this.#setOf(engineSet(engines));
    if (set.has(task.name)) return;
    const recorded = await readRates(engineSet(engines), task.name, this.#state);
    const rate = recorded && rateOf(recorded);
    const lately = new Lately();
    // As much as makes the first shards of a cold worker count half.
    if (rate) lately.add({ rows: rate.perWorker * HALF_LIFE_SECONDS, seconds: HALF_LIFE_SECONDS });
    set.set(task.name, lately);
  }

  add({ task, engines }: Kind, work: Timed): void {
    const set = this.#setOf(engineSet(engines));
    const lately = set.get(task.name) ?? new Lately();
    set.set(task.name, lately);
    lately.add(work);
  }

  /** Rows a second; null: not known. */
  of({ task, engines }: Kind): number | null {
    const { rows, workerSeconds } = this.#setOf(engineSet(engines)).get(task.name) ?? new Lately();
    return workerSeconds > 0 && rows > 0 ? rows / workerSeconds : null;
  }

  /** Of all tasks of a set together. */
  ofSet(engines: string): Pick<Lately, "rows" | "workerSeconds"> {
    const all = [...this.#setOf(engines).values()];
    return { rows: sum(all.map(({ rows }) => rows)), workerSeconds: sum(all.map((lately) => lately.workerSeconds)) };
  }

  #setOf(engines: string): Map<string, Lately> {
    const set = this.#sets.get(engines) ?? new Map<string, Lately>();
    this.#sets.set(engines, set);
    return set;
  }
}

const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);

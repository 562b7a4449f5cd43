/**
 * What KEDA and the autoscaler that it drives do with the figure, by their documentation and with their defaults: no code of
 * theirs runs here. It is asked every 15 s. Up: at most twice as many or 4 more each time. Down: to the highest figure of the
 * last 300 s, and to none 300 s after the last that was not 0.
 */
export const ASK_SECONDS = 15;
const STABILISATION_SECONDS = 300;
const STEP_UP = 4;

export class Autoscaler {
  readonly #seen: { at: number; wanted: number }[] = [];
  readonly #max: number;
  replicas = 0;

  constructor(max: number) {
    this.#max = max;
  }

  ask(now: number, wanted: number): number {
    this.#seen.push({ at: now, wanted: Math.min(wanted, this.#max) });
    while (this.#seen[0]!.at < now - STABILISATION_SECONDS) this.#seen.shift();
    const stable = Math.max(...this.#seen.map((seen) => seen.wanted));
    const up = Math.max(2 * this.replicas, this.replicas + STEP_UP);
    const asked = Math.min(wanted, this.#max);
    if (asked > this.replicas) this.replicas = Math.min(asked, up);
    else if (stable < this.replicas) this.replicas = stable;
    return this.replicas;
  }
}

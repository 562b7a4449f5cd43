/** Rows per second over a sliding window. */
const WINDOW_MS = 30_000;
const MIN_MS = 2_000;

export class Rate {
  readonly #samples: { at: number; done: number }[] = [];

  /** `done` may fall back (a worker died with rows that it had not committed). */
  sample(done: number, now: number): void {
    const last = this.#samples.at(-1);
    if (last && now - last.at < 500) return;
    this.#samples.push({ at: now, done });
    while (this.#samples.length > 2 && now - this.#samples[0]!.at > WINDOW_MS) this.#samples.shift();
  }

  /** Null until there is something to go by. */
  get perSecond(): number | null {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (!first || !last || last.at - first.at < MIN_MS) return null;
    return Math.max(0, (last.done - first.done) / ((last.at - first.at) / 1_000));
  }
}

/**
 * How long a worker was at work on which shard. What passes while several are in its hands is divided equally among them,
 * so that the sum over all shards is the time in which it had any; idle time counts for none.
 */
export interface InHand {
  /** Its part of the time since it was taken. */
  readonly seconds: number;
  put(): void;
}

export class WorkClock {
  readonly #now: () => number;
  #inHand = 0;
  #since = 0;
  /** What a shard would have got that has been in hand from the first one on. */
  #each = 0;

  /** `now`: milliseconds, never going back. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  take(): InHand {
    const before = this.#passed();
    this.#inHand += 1;
    const seconds = () => (this.#passed() - before) / 1_000;
    return {
      get seconds() {
        return seconds();
      },
      put: () => {
        this.#passed();
        this.#inHand -= 1;
      },
    };
  }

  #passed(): number {
    const now = this.#now();
    if (this.#inHand > 0) this.#each += (now - this.#since) / this.#inHand;
    this.#since = now;
    return this.#each;
  }
}

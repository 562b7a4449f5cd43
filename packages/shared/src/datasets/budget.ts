/** A budget of bytes: what is fetched and not yet decoded. Waiters are served in order, so that none starves. */
export class Budget {
  readonly #total: number;
  #left: number;
  readonly #queue: { amount: number; go(): void }[] = [];

  constructor(total: number) {
    this.#total = total;
    this.#left = total;
  }

  /** Waits until `amount` is free (or, for more than the whole budget, until all of it is). Call the result once. */
  async acquire(amount: number): Promise<() => void> {
    const taken = Math.min(amount, this.#total);
    if (this.#queue.length > 0 || this.#left < taken) {
      await new Promise<void>((go) => this.#queue.push({ amount: taken, go }));
    } else {
      this.#left -= taken;
    }
    return () => {
      this.#left += taken;
      while (this.#queue.length > 0 && this.#left >= this.#queue[0]!.amount) {
        const next = this.#queue.shift()!;
        this.#left -= next.amount;
        next.go();
      }
    };
  }
}

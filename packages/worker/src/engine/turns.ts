/**
 * In which order the engine thread runs its batches: urgent ones first, else as they came. After `MAX_URGENT` urgent ones
 * in a row one of the others has its turn, so that bulk work keeps a quarter of the batches whatever is asked meanwhile.
 */
export const MAX_URGENT = 3;

export class Turns<T extends { urgent: boolean }> {
  readonly #urgent: T[] = [];
  readonly #others: T[] = [];
  #inARow = 0;

  add(batch: T): void {
    (batch.urgent ? this.#urgent : this.#others).push(batch);
  }

  /** Undefined where nothing waits. */
  next(): T | undefined {
    const yields = this.#inARow >= MAX_URGENT && this.#others.length > 0;
    const urgent = yields ? undefined : this.#urgent.shift();
    this.#inARow = urgent ? this.#inARow + 1 : 0;
    return urgent ?? this.#others.shift();
  }
}

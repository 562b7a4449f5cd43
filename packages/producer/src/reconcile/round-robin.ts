/**
 * Which job's shards come next: deficit round-robin (Shreedhar and Varghese, 1995). Each round a job may spend its weight
 * in shares of the fleet; what it could not spend it keeps, so that jobs with large and small shards get equal work.
 */

export interface Runnable {
  id: string;
  weight: number;
  /** What one of its shards costs, in any unit that all jobs share. */
  cost: number;
  /** Shards that may be handed out now, at most. */
  available: number;
}

export class DeficitRoundRobin {
  readonly #deficits = new Map<string, number>();
  /** Jobs in turn; the first is next. */
  #turn: string[] = [];

  /** How many shards each job may hand out, `room` in all at most. */
  share(jobs: readonly Runnable[], room: number): Map<string, number> {
    const waiting = new Map(jobs.filter(({ available }) => available > 0).map((job) => [job.id, job]));
    // A job with nothing to hand out loses its savings: they are for being interrupted, not for being idle.
    for (const id of this.#deficits.keys()) if (!waiting.has(id)) this.#deficits.delete(id);
    this.#turn = [
      ...this.#turn.filter((id) => waiting.has(id)),
      ...[...waiting.keys()].filter((id) => !this.#turn.includes(id)),
    ];

    const shares = new Map<string, number>();
    const quantum = Math.max(0, ...[...waiting.values()].map(({ cost, weight }) => cost / weight));
    let left = room;
    while (left > 0 && this.#turn.length > 0) {
      const id = this.#turn[0]!;
      const job = waiting.get(id)!;
      const taken = shares.get(id) ?? 0;
      const saved = this.#deficits.get(id) ?? quantum * job.weight;
      const count = Math.min(Math.floor(saved / job.cost), job.available - taken, left);
      shares.set(id, taken + count);
      left -= count;
      const rest = saved - count * job.cost;
      if (taken + count === job.available) {
        this.#turn.shift();
        this.#deficits.delete(id);
      } else if (rest < job.cost) {
        this.#turn.push(this.#turn.shift()!);
        this.#deficits.set(id, rest + quantum * job.weight);
      } else {
        // The room ran out in the middle of its turn; it goes on from here.
        this.#deficits.set(id, rest);
      }
    }
    return shares;
  }
}

/**
 * When a shard that met a shard error may be tried again, and whether the job is blocked. Pauses double from one second to
 * thirty. After `BLOCKED_AFTER` errors without a commit in between, the whole job is blocked: one shard at a time probes
 * whether the trouble has gone, and the first commit ends it.
 */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
const BLOCKED_AFTER = 5;

export interface Reason {
  code: string;
  message: string;
}

export class Backoff {
  readonly #shards = new Map<number, { attempts: number; notBefore: number }>();
  #errors = 0;
  #notBefore = 0;
  #last: Reason | null = null;

  failed(shard: number, reason: Reason, now: number): void {
    const attempts = (this.#shards.get(shard)?.attempts ?? 0) + 1;
    this.#shards.set(shard, { attempts, notBefore: now + pause(attempts) });
    this.jobFailed(reason, now);
  }

  /** An error of the job itself, such as a listing that was refused. */
  jobFailed(reason: Reason, now: number): void {
    this.#errors += 1;
    this.#last = reason;
    this.#notBefore = now + pause(this.#errors - BLOCKED_AFTER + 1);
  }

  succeeded(shard: number): void {
    this.#shards.delete(shard);
    this.#errors = 0;
    this.#last = null;
  }

  /** Why the job is blocked; null while it is not. */
  get blocked(): Reason | null {
    return this.#errors >= BLOCKED_AFTER ? this.#last : null;
  }

  mayTry(shard: number, now: number): boolean {
    return now >= (this.#shards.get(shard)?.notBefore ?? 0);
  }

  /** While blocked: may a probe go out? */
  mayProbe(now: number): boolean {
    return now >= this.#notBefore;
  }
}

function pause(attempts: number): number {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.max(0, attempts - 1));
}

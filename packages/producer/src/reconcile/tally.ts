/**
 * What a job has committed, counted from object storage. Shards below `lowWater` are all committed; above it, `#shards`
 * holds those that are. Sums come from reports where there are some, else from the results themselves; per 1,000
 * shards they are kept in `rollups/`, so that a new reconciler reads 1,000 results at most.
 *
 * Once a job is retried, a shard with rows that are to be done again does not count as committed until they are. Which
 * these are, only the results tell: all of them are read again.
 *
 * What this attempt of the job took is known from reports alone. A shard that is found without one counts as not timed.
 */
import {
  addSums,
  addWork,
  layout,
  NO_SUMS,
  NO_WORK,
  needsRetry,
  type ResultRow,
  ROLLUP_SHARDS,
  type Rollup,
  rollupSchema,
  type Sums,
  sumRows,
  type Work,
} from "@capfleet/shared/contract";
import { faultPoint } from "@capfleet/shared/faults";
import type { Store } from "@capfleet/shared/storage";
import pLimit from "p-limit";

const READS_AT_ONCE = 8;

interface Committed {
  sums: Sums;
  work: Work;
}

export class Tally {
  /** Every shard below it is committed. */
  lowWater = 0;
  /** Of everything committed. */
  sums: Sums = NO_SUMS;
  /** Of this attempt of the job. */
  work: Work = NO_WORK;
  readonly #store: Store;
  /** Committed shards that no rollup covers. */
  readonly #shards = new Map<number, Committed>();
  readonly #retries: number;
  /** Results that are to be done again, as they are now: their ETag, and how many of their rows are. */
  readonly #stale = new Map<number, { etag: string; again: number; rows: number }>();
  #rolledUp = 0;
  #isLoaded = false;

  /** `retries`: the job's. */
  constructor(store: Store, retries: number) {
    this.#store = store;
    this.#retries = retries;
  }

  /** Takes up what an earlier reconciler has left. */
  async load(): Promise<void> {
    for await (const { key } of this.#store.list({ prefix: layout.rollups })) {
      const { bytes } = await this.#store.read(key);
      const rollup = rollupSchema.parse(JSON.parse(bytes.toString("utf8")));
      if (rollup.from !== this.#rolledUp || rollup.retries !== this.#retries) break;
      this.#rolledUp += rollup.shards;
      this.sums = addSums(this.sums, rollup);
      // Without it, it is an older version's.
      this.work = addWork(this.work, rollup.work ?? this.#untimed(rollup.rows));
    }
    this.lowWater = this.#rolledUp;
    await this.look();
    this.#isLoaded = true;
  }

  isCommitted(shard: number): boolean {
    return shard < this.lowWater || this.#shards.has(shard);
  }

  /** Above the low-water mark. */
  get ahead(): number {
    return this.#rolledUp + this.#shards.size - this.lowWater;
  }

  /** Of shards that are to be done again: the rows that stay as they are. */
  get kept(): number {
    return [...this.#stale.values()].reduce((sum, { rows, again }) => sum + rows - again, 0);
  }

  /** What a worker has reported; `work`: null where it does not tell. */
  add(shard: number, sums: Sums, work: Work | null): void {
    if (this.isCommitted(shard)) this.#time(shard, work);
    else this.#commit(shard, { sums, work: work ?? this.#doneSince(shard, sums.rows) });
  }

  #commit(shard: number, { sums, work }: Committed): void {
    this.#shards.set(shard, { sums, work });
    this.#stale.delete(shard);
    this.sums = addSums(this.sums, sums);
    this.work = addWork(this.work, work);
    while (this.#shards.has(this.lowWater)) this.lowWater += 1;
  }

  /** The report of a shard whose result was found before it came. */
  #time(shard: number, work: Work | null): void {
    const known = this.#shards.get(shard);
    if (!work || !known || known.work.rows > 0) return;
    this.work = addWork({ ...this.work, untimed: this.work.untimed - known.work.untimed }, work);
    this.#shards.set(shard, { ...known, work });
  }

  /** Of a shard that was committed while this looked on. */
  #doneSince(shard: number, rows: number): Work {
    return { ...NO_WORK, untimed: this.#stale.get(shard)?.again ?? rows };
  }

  /** Rows of a result that was there before: in a retry, most are of earlier attempts. */
  #untimed(rows: number): Work {
    return { ...NO_WORK, untimed: this.#retries === 0 ? rows : 0 };
  }

  /** Lists the results above the low-water mark, and reads those that nobody has reported. */
  async look(): Promise<void> {
    const limit = pLimit(READS_AT_ONCE);
    const reads: Promise<void>[] = [];
    const after = this.lowWater > 0 ? layout.result(this.lowWater - 1) : undefined;
    for await (const { key, etag } of this.#store.list({ prefix: layout.results, ...(after && { after }) })) {
      const shard = layout.numberOf(key);
      if (shard === null || this.isCommitted(shard) || this.#stale.get(shard)?.etag === etag) continue;
      reads.push(limit(() => this.#read(shard, key)));
    }
    await Promise.all(reads);
  }

  async #read(shard: number, key: string): Promise<void> {
    const { bytes, etag } = await this.#store.read(key);
    const lines = bytes.toString("utf8").trimEnd().split("\n");
    const rows = lines.map((line) => JSON.parse(line) as ResultRow);
    const again = rows.filter((row) => needsRetry(row, this.#retries)).length;
    if (again > 0) {
      this.#stale.set(shard, { etag, again, rows: rows.length });
      return;
    }
    const work = this.#isLoaded ? this.#doneSince(shard, rows.length) : this.#untimed(rows.length);
    // A report may have come while the result was read.
    if (!this.isCommitted(shard)) this.#commit(shard, { sums: sumRows(rows), work });
  }

  /** Writes the rollups that have become whole; with `all`, the last one too. Writing one again changes nothing. */
  async rollUp(all = false): Promise<void> {
    for (;;) {
      const ready = this.lowWater - this.#rolledUp;
      if (ready < (all ? 1 : ROLLUP_SHARDS)) return;
      const shards = Math.min(ready, ROLLUP_SHARDS);
      const from = this.#rolledUp;
      let [sums, work] = [NO_SUMS, NO_WORK];
      for (let shard = from; shard < from + shards; shard++) {
        const committed = this.#shards.get(shard)!;
        sums = addSums(sums, committed.sums);
        work = addWork(work, committed.work);
      }
      const rollup: Rollup = { from, shards, retries: this.#retries, ...sums, work };
      await this.#store.put(layout.rollup(from / ROLLUP_SHARDS), JSON.stringify(rollup));
      faultPoint("reconciler.rollup.written");
      for (let shard = from; shard < from + shards; shard++) this.#shards.delete(shard);
      this.#rolledUp += shards;
    }
  }
}

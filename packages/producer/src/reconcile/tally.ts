/**
 * What a job has committed, counted from object storage. Shards below `lowWater` are all committed; above it, `#shards`
 * holds those that are. Sums come from reports where there are some, else from the results themselves; per 1,000
 * shards they are kept in `rollups/`, so that a new reconciler reads 1,000 results at most.
 *
 * Once a job is retried, a shard with rows that are to be done again does not count as committed until they are. Which
 * these are, only the results tell: all of them are read again.
 */
import {
  addSums,
  layout,
  NO_SUMS,
  needsRetry,
  type ResultRow,
  ROLLUP_SHARDS,
  type Rollup,
  rollupSchema,
  type Sums,
  sumRows,
} from "@capfleet/shared/contract";
import { faultPoint } from "@capfleet/shared/faults";
import type { Store } from "@capfleet/shared/storage";
import pLimit from "p-limit";

const READS_AT_ONCE = 8;

export class Tally {
  /** Every shard below it is committed. */
  lowWater = 0;
  /** Of everything committed. */
  sums: Sums = NO_SUMS;
  readonly #store: Store;
  /** Committed shards that no rollup covers. */
  readonly #shards = new Map<number, Sums>();
  readonly #retries: number;
  /** Results that are to be done again, as they are now; by shard, their ETags. */
  readonly #stale = new Map<number, string>();
  #rolledUp = 0;

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
    }
    this.lowWater = this.#rolledUp;
    await this.look();
  }

  isCommitted(shard: number): boolean {
    return shard < this.lowWater || this.#shards.has(shard);
  }

  /** Above the low-water mark. */
  get ahead(): number {
    return this.#rolledUp + this.#shards.size - this.lowWater;
  }

  add(shard: number, sums: Sums): void {
    if (this.isCommitted(shard)) return;
    this.#shards.set(shard, sums);
    this.#stale.delete(shard);
    this.sums = addSums(this.sums, sums);
    while (this.#shards.has(this.lowWater)) this.lowWater += 1;
  }

  /** Lists the results above the low-water mark, and reads those that nobody has reported. */
  async look(): Promise<void> {
    const limit = pLimit(READS_AT_ONCE);
    const reads: Promise<void>[] = [];
    const after = this.lowWater > 0 ? layout.result(this.lowWater - 1) : undefined;
    for await (const { key, etag } of this.#store.list({ prefix: layout.results, ...(after && { after }) })) {
      const shard = layout.numberOf(key);
      if (shard === null || this.isCommitted(shard) || this.#stale.get(shard) === etag) continue;
      reads.push(limit(() => this.#read(shard, key)));
    }
    await Promise.all(reads);
  }

  async #read(shard: number, key: string): Promise<void> {
    const { bytes, etag } = await this.#store.read(key);
    const lines = bytes.toString("utf8").trimEnd().split("\n");
    const rows = lines.map((line) => JSON.parse(line) as ResultRow);
    if (rows.some((row) => needsRetry(row, this.#retries))) this.#stale.set(shard, etag);
    else this.add(shard, sumRows(rows));
  }

  /** Writes the rollups that have become whole; with `all`, the last one too. Writing one again changes nothing. */
  async rollUp(all = false): Promise<void> {
    for (;;) {
      const ready = this.lowWater - this.#rolledUp;
      if (ready < (all ? 1 : ROLLUP_SHARDS)) return;
      const shards = Math.min(ready, ROLLUP_SHARDS);
      const from = this.#rolledUp;
      let sums = NO_SUMS;
      for (let shard = from; shard < from + shards; shard++) sums = addSums(sums, this.#shards.get(shard)!);
      const rollup: Rollup = { from, shards, retries: this.#retries, ...sums };
      await this.#store.put(layout.rollup(from / ROLLUP_SHARDS), JSON.stringify(rollup));
      faultPoint("reconciler.rollup.written");
      for (let shard = from; shard < from + shards; shard++) this.#shards.delete(shard);
      this.#rolledUp += shards;
    }
  }
}

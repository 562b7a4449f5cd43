/** What a dataset of incremental runs shows: one row for each image, in the order of their keys, from whichever run has it. */
import { CapfleetError, datasetLayout, type IndexEntry, type InputRecord } from "@capfleet/shared/contract";
import type { Store, Stores } from "@capfleet/shared/storage";
import { readShardRows, type ShardRows } from "../jobs/rows.ts";

const CHUNK = 500;
/** Of the runs' last shards, in characters: some are read again where a dataset has very many runs, or very long rows. */
const MAX_HELD = 64 * 1024 * 1024;

export interface ViewRow {
  record: InputRecord;
  /** As its run committed it: JSON. */
  line: string;
}

/** The rows of an index's entries, some at a time. Throws OBJECT_NOT_FOUND where a run's files are gone, and the store's errors. */
export async function* viewRows(
  root: Store,
  parts: AsyncIterable<IndexEntry[]>,
  stores: Stores,
): AsyncGenerator<ViewRow[]> {
  const shards = new LastShards((run) => stores.at(root.uriOf(datasetLayout.run(run))));
  for await (const part of parts) {
    for (let at = 0; at < part.length; at += CHUNK) {
      const rows: ViewRow[] = [];
      for (const { key, run, shard, row } of part.slice(at, at + CHUNK)) {
        const { records, lines } = await shards.read(run, shard);
        const record = records[row];
        if (record?.id !== key || lines[row] === undefined) {
          const where = `${root.uriOf(datasetLayout.run(run))} shard ${shard} row ${row}`;
          throw new CapfleetError("OBJECT_NOT_FOUND", `${where} is not ${key}, as the index has it`);
        }
        rows.push({ record, line: lines[row] });
      }
      yield rows;
    }
  }
}

/** A run's rows are asked for in its own order, so that one shard of each run is enough to read each but once. */
class LastShards {
  readonly #storeOf: (run: string) => Store;
  /** By run; the one that was used last is last. */
  readonly #held = new Map<string, { shard: number; rows: ShardRows; size: number }>();
  #size = 0;

  constructor(storeOf: (run: string) => Store) {
    this.#storeOf = storeOf;
  }

  async read(run: string, shard: number): Promise<ShardRows> {
    const known = this.#held.get(run);
    if (known) this.#drop(run, known.size);
    const here = known?.shard === shard ? known : await this.#load(run, shard);
    this.#held.set(run, here);
    this.#size += here.size;
    for (const [oldest, { size }] of this.#held) {
      if (this.#size <= MAX_HELD || oldest === run) break;
      this.#drop(oldest, size);
    }
    return here.rows;
  }

  async #load(run: string, shard: number) {
    const rows = await readShardRows(this.#storeOf(run), shard);
    return { shard, rows, size: rows.lines.reduce((sum, line) => sum + line.length, 0) };
  }

  #drop(run: string, size: number): void {
    this.#size -= size;
    this.#held.delete(run);
  }
}

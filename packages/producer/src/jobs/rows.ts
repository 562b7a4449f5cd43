/** A shard's records and rows, side by side. */
import { type InputRecord, layout } from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";
import { readTexts } from "./lines.ts";

export interface ShardRows {
  records: InputRecord[];
  /** Each record's row, as it was committed: JSON. */
  lines: string[];
}

/** Of a shard that is committed. Throws the store's errors. */
export async function readShardRows(store: Store, shard: number): Promise<ShardRows> {
  const [planned, lines] = await Promise.all([
    readTexts(store, layout.shard(shard)),
    readTexts(store, layout.result(shard)),
  ]);
  return { records: planned.slice(0, -1).map((line) => JSON.parse(line) as InputRecord), lines };
}

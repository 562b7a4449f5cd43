/**
 * What killed attempts have left in `data/` goes, so that `data/*` has every labelled row exactly once. A file that the
 * results name is never touched.
 */
import { layout, type ResultRow } from "@capfleet/shared/contract";
import { splitLines } from "@capfleet/shared/datasets";
import type { Store } from "@capfleet/shared/storage";

const NAME = /^data\/(\d{6,})-[^/]+$/;
/** No row is so long: it would not fit into a text in memory. */
const MAX_ROW_BYTES = 512 * 1024 * 1024;

interface ShardFiles {
  shard: number;
  keys: string[];
}

/**
 * `files`: how many files the results name, one a shard at the most. One listing; a shard's results are only looked into
 * where it has several files, or where more shards have a file than should.
 */
export async function sweepData(store: Store, files: number): Promise<void> {
  let shards = 0;
  for await (const here of shardFiles(store)) {
    shards += 1;
    if (here.keys.length > 1) await settle(store, here);
  }
  if (shards === files) return;
  // Some shard has a file although its results name none, or it has no results at all. Which one, only they can tell.
  for await (const here of shardFiles(store)) await settle(store, here);
}

/** The files of each shard: they are neighbours in the listing. */
async function* shardFiles(store: Store): AsyncGenerator<ShardFiles> {
  let shard = -1;
  let keys: string[] = [];
  for await (const { key } of store.list({ prefix: layout.data })) {
    const found = NAME.exec(key)?.[1];
    if (found === undefined) continue;
    if (Number(found) !== shard && keys.length > 0) {
      yield { shard, keys };
      keys = [];
    }
    shard = Number(found);
    keys.push(key);
  }
  if (keys.length > 0) yield { shard, keys };
}

async function settle(store: Store, { shard, keys }: ShardFiles): Promise<void> {
  const named = await namedBy(store, layout.result(shard));
  for (const key of keys) if (key !== named) await store.delete(key);
}

/** The first labelled row says it. Null where there is none, or there are no results. */
async function namedBy(store: Store, key: string): Promise<string | null> {
  if (!(await store.stat(key))) return null;
  const { body } = await store.stream(key);
  for await (const lines of splitLines(body, MAX_ROW_BYTES)) {
    for (const { text } of lines) {
      const { data } = JSON.parse(text!) as ResultRow;
      if (data !== undefined) return data;
    }
  }
  return null;
}

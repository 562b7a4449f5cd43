/** What a job wrote, checked against what it was given. */
import { jobFileSchema, layout, type ResultRow, resultRowSchema, type Summary } from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";
import { expect } from "vitest";
import { readSummary } from "../../packages/producer/src/jobs/status.ts";
import { readShard } from "../../packages/worker/src/pipeline/shard.ts";

/** Of which a labelled row has at least one. */
const FIELDS = ["caption", "answer", "answers", "itm", "itc", "scores", "embedding", "embeddings", "pairs"] as const;

/** Every row of a job, in the order of its shards. */
export async function readRows(store: Store): Promise<ResultRow[]> {
  const rows: ResultRow[] = [];
  for await (const { key } of store.list({ prefix: layout.results })) {
    const text = (await store.read(key)).bytes.toString("utf8").trimEnd();
    for (const line of text.split("\n")) rows.push(resultRowSchema.parse(JSON.parse(line)));
  }
  return rows;
}

/**
 * The promise of every job: finished, each record has exactly one row, in its place, and the summary says what the rows
 * say. Returns the rows.
 */
export async function expectWhole(store: Store, records: number): Promise<{ rows: ResultRow[]; summary: Summary }> {
  const summary = (await readSummary(store))!;
  const rows = await readRows(store);
  const given: string[] = [];
  for (let shard = 0; shard < summary.shards; shard++)
    given.push(...(await readShard(store, shard)).map(({ id }) => id));
  expect(given).toHaveLength(records);
  expect(rows.map(({ id }) => id)).toEqual(given);
  const failed = rows.filter(({ error }) => error).length;
  const warned = rows.filter(({ warnings }) => warnings).length;
  const counts = { records, rows: records, failed, warned, succeeded: records - failed };
  expect(summary).toMatchObject({ state: "finished", ...counts });
  for (const row of rows) expect(row.error !== undefined).not.toBe(FIELDS.some((field) => row[field] !== undefined));
  expect(await store.stat(layout.success)).not.toBeNull();
  jobFileSchema.parse(JSON.parse((await store.read(layout.job)).bytes.toString("utf8")));
  return { rows, summary };
}

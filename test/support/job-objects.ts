/** A finished job's objects, written directly: for what reads them and asks no model. */
import {
  type Format,
  type InputRecord,
  inputSchema,
  type JobFile,
  type JobState,
  type JobTaskSpec,
  layout,
  type ResultRow,
} from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";
import { newState } from "../../packages/producer/src/jobs/states.ts";

export interface Given {
  task: JobTaskSpec;
  shards: number;
  perShard: number;
  /** The record and row number `n` of the job. */
  line(n: number): { record: InputRecord; row: ResultRow };
  keep?: string[];
  format?: Format;
  input?: string;
}

export async function writeJob(
  store: Store,
  { task, shards, perShard, line, keep = [], format = "jsonl", input = "file:///nowhere/" }: Given,
): Promise<{ file: JobFile; state: JobState; store: Store }> {
  const created = new Date(0).toISOString();
  const file: JobFile = {
    schema: 1,
    id: "job_01K9ZJ5W3N8Q4T6V7X8Y9Z0A1B",
    capfleet: "0.1.0",
    created,
    fingerprint: "f",
    spec: {
      task,
      engines: [{ model: "m", digest: "d", checkpoint: "c", precision: "fp32" }],
      input: inputSchema.parse({ kind: "jsonl", uri: input, keep }),
      limit: null,
      format,
      shardSize: perShard,
      lane: "normal",
      readable: null,
    },
  };
  for (let shard = 0; shard < shards; shard++) {
    const lines = Array.from({ length: perShard }, (_, i) => line(shard * perShard + i));
    const end = { records: perShard, planned: (shard + 1) * perShard, cursor: { source: "prefix", after: "x" } };
    const records = [...lines.map(({ record }) => record), end];
    await store.put(layout.shard(shard), `${records.map((one) => JSON.stringify(one)).join("\n")}\n`);
    await store.put(layout.result(shard), lines.map(({ row }) => `${JSON.stringify(row)}\n`).join(""));
  }
  await store.put(layout.plan, JSON.stringify({ shards, records: shards * perShard, seconds: 1 }));
  await store.put(layout.job, JSON.stringify(file));
  await store.put(layout.success, "");
  return { file, state: { ...newState(file, store.uri, "local"), ended: "finished" }, store };
}

/** A finished job's rows; a part is a fixed number of its shards. */
import {
  CapfleetError,
  type InputRecord,
  type JobFile,
  type JobState,
  layout,
  type ResultRow,
} from "@capfleet/shared/contract";
import { type KeyedRow, rowKey, splitLines } from "@capfleet/shared/datasets";
import type { Store } from "@capfleet/shared/storage";
import { parseLines, readLines } from "../jobs/lines.ts";
import { readPlan } from "../plan/planner.ts";
import { ahead } from "./ahead.ts";
import type { ExportPart, ExportSource } from "./source.ts";

/** Results up to this size are read whole, and while the ones before are written; larger ones as a stream. */
const WHOLE_BYTES = 8 * 1024 * 1024;
const SHARDS_AHEAD = 4;
/** No row is so long: it would not fit into a text in memory. */
const MAX_ROW_BYTES = 512 * 1024 * 1024;
const CHUNK = 100;

interface Job {
  file: JobFile;
  state: JobState;
  store: Store;
}

/** Throws JOB_STATE for a job that is not finished, and the store's errors. */
export async function jobSource({ file, state, store }: Job): Promise<ExportSource> {
  if (state.ended !== "finished") throw new CapfleetError("JOB_STATE", `${file.id} is ${wordFor(state)}, not finished`);
  const plan = await readPlan(store);
  if (!plan) throw new CapfleetError("JOB_FAILED", `${store.uriOf(layout.plan)} is gone`);
  const { shards, records } = plan;
  return {
    identity: { job: file.id, retries: state.retries },
    spec: file.spec,
    rows: records,
    *parts(rowsPerPart) {
      const each = Math.max(1, Math.floor(rowsPerPart / Math.ceil(records / shards)));
      for (let from = 0; from < shards; from += each) yield partOf(store, from, Math.min(from + each, shards));
    },
  };
}

const wordFor = ({ ended, intent }: JobState) => ended ?? (intent === "run" ? "running" : intent);

function partOf(store: Store, from: number, to: number): ExportPart {
  return {
    async *rows() {
      const shards = Array.from({ length: to - from }, (_, i) => from + i);
      const opened = ahead(shards, SHARDS_AHEAD, async (shard) => {
        const [records, whole] = await Promise.all([
          readLines<InputRecord>(store, layout.shard(shard)),
          readSmall(store, layout.result(shard)),
        ]);
        return { shard, records, whole };
      });
      for await (const { shard, records, whole } of opened) {
        let next = 0;
        const rows = whole ? [parseLines<ResultRow>(whole)] : streamRows(store, layout.result(shard));
        for await (const chunk of rows) {
          yield chunk.map((row): KeyedRow => ({ key: rowKey(shard, next), record: records[next++]!, row }));
        }
      }
    },
  };
}

async function readSmall(store: Store, key: string): Promise<Buffer | null> {
  try {
    return (await store.read(key, { maxBytes: WHOLE_BYTES })).bytes;
  } catch (thrown) {
    if (thrown instanceof CapfleetError && thrown.code === "OBJECT_TOO_LARGE") return null;
    throw thrown;
  }
}

async function* streamRows(store: Store, key: string): AsyncGenerator<ResultRow[]> {
  const { body } = await store.stream(key);
  for await (const lines of splitLines(body, MAX_ROW_BYTES)) {
    for (let at = 0; at < lines.length; at += CHUNK) {
      yield lines.slice(at, at + CHUNK).map(({ text }) => JSON.parse(text!) as ResultRow);
    }
  }
}

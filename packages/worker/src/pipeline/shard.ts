/**
 * One shard, from its records to its committed rows:
 *
 *   read job, shard and intent → label every record (fetch → decode → batch → infer) → commit
 *
 * Row errors become rows. Anything else that goes wrong throws out of here, and the shard will be tried again: nothing
 * has been written by then. The commit is one conditional PUT, so that a shard which two workers finish has one result.
 */
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import {
  asCapfleetError,
  CapfleetError,
  type InputRecord,
  type JobFile,
  jobFileSchema,
  layout,
  needsImage,
  needsRetry,
  type ResultRow,
  recordSchema,
  type Sums,
  shardEndSchema,
  sumRows,
} from "@capfleet/shared/contract";
import { parseUri, type Store, type Stores } from "@capfleet/shared/storage";
import type { Intents } from "./intent.ts";

export interface ShardTask {
  job: string;
  shard: number;
  out: string;
  /** Above 0: of a shard that has results, the rows that failed and may succeed are done again; see `needsRetry`. */
  retries: number;
}

/** Rows of a shard that is being worked on; presence shows it. */
export interface InFlight extends ShardTask {
  rows: number;
  failed: number;
}

export type ShardOutcome =
  | { outcome: "committed"; sums: Sums }
  /** Another attempt's results stand. */
  | { outcome: "already" }
  /** The job has been cancelled, or paused before the shard began. */
  | { outcome: "withdrawn" };

export interface ShardContext {
  stores: Stores;
  intents: Intents;
  /** Runs a record's work when the pipeline has room for it. */
  admit<T>(work: () => Promise<T>): Promise<T>;
  /** Labels one record; row errors throw as well. */
  label(record: InputRecord, job: JobFile, signal: AbortSignal): Promise<Partial<ResultRow>>;
}

/** Throws shard errors, or the signal's reason when it is aborted. */
export async function runShard(progress: InFlight, context: ShardContext, signal: AbortSignal): Promise<ShardOutcome> {
  const { job, shard } = progress;
  const store = context.stores.at(progress.out);
  if ((await context.intents.of(job)) !== "run") return { outcome: "withdrawn" };
  const before = await readResult(store, progress);
  if (before && !before.rows.some((row) => needsRetry(row, progress.retries))) return { outcome: "already" };
  const file = await readJob(store);
  if (needsImage(file.spec.task)) await checkMounted(file.spec.input.uri);
  const records = await readShard(store, shard);

  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const rows = await Promise.all(
    records.map(async (record, i): Promise<ResultRow> => {
      const known = before?.rows[i];
      if (known && !needsRetry(known, progress.retries)) return known;
      const row: ResultRow = await context
        .admit(() => labelRecord(record, file, context, either))
        .catch((thrown: unknown) => {
          // The first failure settles the shard; what has not begun yet need not begin.
          stop.abort(thrown);
          throw thrown;
        });
      progress.rows += 1;
      if (row.error) progress.failed += 1;
      if (!row.error || progress.retries === 0) return row;
      return { ...row, error: { ...row.error, attempt: progress.retries + 1 } };
    }),
  ).catch((thrown: unknown) => {
    if (thrown instanceof Cancelled) return null;
    throw thrown;
  });
  if (rows === null || (await context.intents.of(job)) === "cancelled") return { outcome: "withdrawn" };

  const body = `${rows.map((row) => JSON.stringify(row)).join("\n")}\n`;
  // A worker that dies before this line has cost its work and nothing else; after it, nothing at all.
  const key = layout.result(shard);
  const put = before ? await store.putIfMatch(key, body, before.etag) : await store.putIfAbsent(key, body);
  return put.outcome === "written" ? { outcome: "committed", sums: sumRows(rows) } : { outcome: "already" };
}

/** What an earlier attempt committed; null where nothing is. Only a retry looks into it. */
async function readResult(store: Store, { shard, retries }: ShardTask) {
  const key = layout.result(shard);
  if (!(await store.stat(key))) return null;
  if (retries === 0) return { rows: [], etag: "" };
  const { bytes, etag } = await store.read(key);
  const lines = bytes.toString("utf8").trimEnd().split("\n");
  return { rows: parse(store.uriOf(key), () => lines.map((line) => JSON.parse(line) as ResultRow)), etag };
}

class Cancelled extends Error {}

async function labelRecord(record: InputRecord, job: JobFile, context: ShardContext, signal: AbortSignal) {
  const { id, image, member, kept } = record;
  const own = { id, image, ...(member && { member: member.name }), ...(kept && { kept }) };
  // A line that was no record when it was planned keeps the error that the planner gave it.
  if (record.error) return { ...own, error: record.error };
  try {
    signal.throwIfAborted();
    if ((await context.intents.of(job.id)) === "cancelled") throw new Cancelled();
    return { ...own, ...(await context.label(record, job, signal)) };
  } catch (thrown) {
    if (!(thrown instanceof CapfleetError) || thrown.scope !== "row") throw thrown;
    return { ...own, error: { code: thrown.code, message: thrown.message, retryable: thrown.retryable } };
  }
}

/** A disk that is not mounted here must not turn every record into a row that says "not found". */
async function checkMounted(input: string): Promise<void> {
  const location = parseUri(input);
  if (location.scheme !== "file") return;
  const folder = dirname(`${location.path}.`);
  const there = await stat(folder).catch(() => null);
  if (!there?.isDirectory()) throw new CapfleetError("STORE_BUCKET_NOT_FOUND", `this worker has no folder ${folder}`);
}

async function readJob(store: Store): Promise<JobFile> {
  const { bytes } = await store.read(layout.job);
  return parse(store.uriOf(layout.job), () => jobFileSchema.parse(JSON.parse(bytes.toString("utf8"))));
}

/** A shard's records. Throws JOB_FAILED for a file that capfleet did not write, or not whole. */
export async function readShard(store: Store, shard: number): Promise<InputRecord[]> {
  const key = layout.shard(shard);
  const { bytes } = await store.read(key);
  return parse(store.uriOf(key), () => {
    const lines = bytes.toString("utf8").trimEnd().split("\n");
    const end = shardEndSchema.parse(JSON.parse(lines.pop()!));
    const records = lines.map((line) => recordSchema.parse(JSON.parse(line)));
    if (records.length !== end.records) throw new Error(`${records.length} records, not ${end.records}`);
    return records;
  });
}

function parse<T>(uri: string, read: () => T): T {
  try {
    return read();
  } catch (thrown) {
    throw new CapfleetError("JOB_FAILED", `${uri} can't be read: ${asCapfleetError(thrown).message}`, {
      cause: thrown,
    });
  }
}

/**
 * One shard, from its records to its committed rows:
 *
 *   read job, shard and intent → label every record (fetch → decode → batch → infer) → write its data file → commit
 *
 * Row errors become rows. Anything else that goes wrong throws out of here, and the shard will be tried again: nothing
 * that counts has been written by then. The commit is one conditional PUT, so that a shard which two workers finish has
 * one result.
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
import type { ImageSource } from "@capfleet/shared/datasets";
import { faultPoint } from "@capfleet/shared/faults";
import { parseUri, type Store, type Stores } from "@capfleet/shared/storage";
import { openImages, writeData } from "./data.ts";
import type { Intents } from "./intent.ts";
import type { Keep } from "./labeler.ts";

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
  /** Labels one record, and gives `keep` its image; row errors throw as well. */
  label(record: InputRecord, job: JobFile, signal: AbortSignal, keep?: Keep): Promise<Partial<ResultRow>>;
  /** Only gives `keep` the image. */
  fetch(record: ImageSource, signal: AbortSignal, keep: Keep): Promise<void>;
}

/** Throws shard errors, or the signal's reason when it is aborted. */
export async function runShard(progress: InFlight, context: ShardContext, signal: AbortSignal): Promise<ShardOutcome> {
  const { job, shard } = progress;
  const store = context.stores.at(progress.out);
  if ((await context.intents.of(job)) !== "run") return { outcome: "withdrawn" };
  faultPoint("worker.intent.read", shard);
  const before = await readResult(store, progress);
  if (before && !before.rows.some((row) => needsRetry(row, progress.retries))) return { outcome: "already" };
  const file = await readJob(store);
  if (needsImage(file.spec.task)) await checkMounted(file.spec.input.uri);
  const records = await readShard(store, shard);
  faultPoint("worker.input.read", shard);
  await using images = await openImages(file.spec);

  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const rows = await Promise.all(
    records.map(async (record, i): Promise<ResultRow> => {
      const known = before?.rows[i];
      const isKnown = known && !needsRetry(known, progress.retries);
      if (isKnown && (known.error || !images)) return known;
      const keep = images ? (bytes: Buffer) => images.keep(i, bytes, record.member?.name ?? record.image!) : undefined;
      const work = () =>
        isKnown ? fetchAgain(record, known, context, either, keep!) : labelRecord(record, file, context, either, keep);
      const row = await context.admit<ResultRow>(work).catch((thrown: unknown) => {
        // The first failure settles the shard; what has not begun yet need not begin.
        stop.abort(thrown);
        throw thrown;
      });
      if (isKnown) return row;
      progress.rows += 1;
      if (row.error) progress.failed += 1;
      if (!row.error || progress.retries === 0) return row;
      return { ...row, error: { ...row.error, attempt: progress.retries + 1 } };
    }),
  ).catch((thrown: unknown) => {
    if (thrown instanceof Cancelled) return null;
    throw thrown;
  });
  if (rows === null) return { outcome: "withdrawn" };

  const key = layout.result(shard);
  // A worker that stood still for long may get here after the job has ended, when nobody looks any more for files that no row
  // names: where another attempt has committed, it writes none.
  if (file.spec.format !== "jsonl" && (await store.stat(key))?.etag !== before?.etag) return { outcome: "already" };
  const data = await writeData(store, file.spec, shard, records, rows, images);
  faultPoint("worker.data.written", shard);
  const drop = async (name: string | null | undefined) => {
    // What stays all the same is taken away when the job ends.
    if (name) await store.delete(name).catch(() => {});
  };
  if ((await context.intents.of(job)) === "cancelled") {
    await drop(data);
    return { outcome: "withdrawn" };
  }
  const named = rows.map((row, i) => nameData(row, images && !images.has(i) ? null : data));
  const body = `${named.map((row) => JSON.stringify(row)).join("\n")}\n`;
  // A worker that dies before this line has cost its work and a data file that nothing names; after it, nothing at all.
  // The same goes for a PUT that throws: the server may have done it, so the data file must stay.
  faultPoint("worker.commit.before", shard);
  const put = before ? await store.putIfMatch(key, body, before.etag) : await store.putIfAbsent(key, body);
  faultPoint("worker.commit.after", shard);
  await drop(put.outcome === "written" ? before?.rows.find((row) => row.data)?.data : data);
  return put.outcome === "written" ? { outcome: "committed", sums: sumRows(named) } : { outcome: "already" };
}

/** A labelled row with the name of the file that it is in. */
function nameData({ data: _, ...row }: ResultRow, data: string | null): ResultRow {
  return row.error || data === null ? row : { ...row, data };
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

async function labelRecord(record: InputRecord, job: JobFile, context: ShardContext, signal: AbortSignal, keep?: Keep) {
  const { id, image, member, kept } = record;
  const own = { id, image, ...(member && { member: member.name }), ...(kept && { kept }) };
  // A line that was no record when it was planned keeps the error that the planner gave it.
  if (record.error) return { ...own, error: record.error };
  try {
    signal.throwIfAborted();
    if ((await context.intents.of(job.id)) === "cancelled") throw new Cancelled();
    return { ...own, ...(await context.label(record, job, signal, keep)) };
  } catch (thrown) {
    if (!(thrown instanceof CapfleetError) || thrown.scope !== "row") throw thrown;
    return { ...own, error: { code: thrown.code, message: thrown.message, retryable: thrown.retryable } };
  }
}

/** The tar of a shard is written anew, whole: a row that stays as it is needs its image again. */
async function fetchAgain(
  record: InputRecord,
  row: ResultRow,
  context: ShardContext,
  signal: AbortSignal,
  keep: Keep,
): Promise<ResultRow> {
  try {
    signal.throwIfAborted();
    await context.fetch(record, signal, keep);
    return row;
  } catch (thrown) {
    if (!(thrown instanceof CapfleetError) || thrown.scope !== "row") throw thrown;
    // The label holds all the same; the tar has to do without.
    const warning = `${GONE}: ${thrown.code}`;
    return { ...row, warnings: [...(row.warnings ?? []).filter((text) => !text.startsWith(GONE)), warning] };
  }
}

const GONE = "the image could not be read again for the tar";

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

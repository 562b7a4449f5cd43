/**
 * Cuts a dataset into shards, as a stream. A shard is written only when the one before it is known to be there, so the
 * files never have a gap and each begins where the one before it ends, whatever dies and whoever else plans the same job;
 * while one is being written the next is being read. plan.json comes last. Interrupted anywhere, planning goes on from
 * the cursor of the last shard.
 */
import {
  CapfleetError,
  DEFAULT_SHARD_SIZE,
  type InputRecord,
  type JobSpec,
  type JobTaskSpec,
  layout,
  MIN_SHARD_SIZE,
  type Plan,
  planSchema,
  type ShardEnd,
  shardEndSchema,
  textsOf,
} from "@capfleet/shared/contract";
import type { Dataset, Entry } from "@capfleet/shared/datasets";
import { faultPoint } from "@capfleet/shared/faults";
import type { Store } from "@capfleet/shared/storage";

/** A job that would have fewer shards than this gets smaller ones, so that no worker slot idles. */
const SHARDS_WANTED = 8;
/**
 * What the texts of a shard and what its records keep may weigh, so that neither a shard nor its rows outgrow a worker's memory: a text's
 * characters, and for what becomes of it (a score, an answer, at the most an embedding) as good as 4 KiB.
 */
const MAX_TEXT_WEIGHT = 32 * 1024 * 1024;
const TEXT_RESULT_WEIGHT = 4 * 1024;

export interface Planned {
  /** Shards that are written. */
  shards: number;
  records: number;
}

export interface PlanRequest {
  store: Store;
  spec: JobSpec;
  dataset: Dataset;
  /** Shards that the live workers can have in work at once. */
  slots: number;
  signal: AbortSignal;
  /** Called after each shard, and once at the start. */
  onShard(planned: Planned): void;
}

/** Throws SOURCE_CHANGED, JOB_FAILED (a shard file is gone), PlanConflict, the store's errors, or the signal's reason. */
export async function planJob(request: PlanRequest): Promise<Plan> {
  const { store, spec, dataset, signal, onShard } = request;
  const known = await readPlan(store);
  if (known) {
    onShard(known);
    return known;
  }
  const started = performance.now();
  const begun = await lastShard(store);
  let shards = begun.shards;
  let planned = begun.end?.planned ?? 0;
  onShard({ shards, records: planned });

  let writing: Promise<void> = Promise.resolve();
  const write = async (entries: Entry[]) => {
    await writing;
    signal.throwIfAborted();
    const shard = shards++;
    planned += entries.length;
    const here = { shards, records: planned };
    writing = writeShard(store, shard, planned, entries).then(() => {
      faultPoint("planner.shard.written", shard);
      onShard(here);
    });
    // Awaited before the next write; until then a failure must not count as unhandled.
    writing.catch(() => {});
  };

  const entries = limited(dataset.entries(begun.end?.cursor ?? null), spec.limit, planned, signal);
  const { size, rest } = await chooseSize(entries, spec.shardSize ?? begun.firstSize, request.slots);
  const weigh = textWeight(spec.task);
  let pending: Entry[] = [];
  let weight = 0;
  const flush = async () => {
    if (pending.length > 0) await write(pending);
    pending = [];
    weight = 0;
  };
  for await (const chunk of rest) {
    for (const entry of chunk) {
      const more = weigh(entry.record);
      if (weight + more > MAX_TEXT_WEIGHT) await flush();
      pending.push(entry);
      weight += more;
      if (pending.length === size) await flush();
    }
  }
  await flush();
  await writing;

  const plan: Plan = { shards, records: planned, seconds: (performance.now() - started) / 1_000 };
  faultPoint("planner.plan.before");
  await store.put(layout.plan, JSON.stringify(plan));
  faultPoint("planner.plan.after");
  return plan;
}

/** Another producer has planned this shard otherwise; whoever meets it starts again from what is there. */
export class PlanConflict extends Error {}

async function writeShard(store: Store, shard: number, planned: number, entries: Entry[]): Promise<void> {
  const end: ShardEnd = { records: entries.length, planned, cursor: entries.at(-1)!.cursor };
  const body = `${entries.map(({ record }) => JSON.stringify(record)).join("\n")}\n${JSON.stringify(end)}\n`;
  const key = layout.shard(shard);
  const put = await store.putIfAbsent(key, body);
  if (put.outcome === "written") return;
  const { bytes } = await store.read(key);
  if (bytes.toString("utf8") !== body) throw new PlanConflict(`${store.uriOf(key)} was planned by another producer`);
}

/** Null while the plan is not whole. */
export async function readPlan(store: Store): Promise<Plan | null> {
  if (!(await store.stat(layout.plan))) return null;
  return planSchema.parse(JSON.parse((await store.read(layout.plan)).bytes.toString("utf8")));
}

/** How far a job is planned, from its objects alone. */
export async function readPlanned(store: Store): Promise<Planned> {
  const shards = await countShards(store);
  return { shards, records: shards === 0 ? 0 : (await readEnd(store, shards - 1)).planned };
}

/** How far planning has come: the last shard's end, and the first shard's size, which the others have as well. */
async function lastShard(store: Store): Promise<{ shards: number; end: ShardEnd | null; firstSize: number | null }> {
  const shards = await countShards(store);
  if (shards === 0) return { shards, end: null, firstSize: null };
  const end = await readEnd(store, shards - 1);
  const first = shards === 1 ? end : await readEnd(store, 0);
  return { shards, end, firstSize: first.records };
}

async function countShards(store: Store): Promise<number> {
  let shards = 0;
  for await (const { key } of store.list({ prefix: layout.shards })) {
    if (layout.numberOf(key) !== shards) {
      throw new CapfleetError("JOB_FAILED", `${store.uriOf(layout.shard(shards))} is gone, and ${key} is there`);
    }
    shards += 1;
  }
  return shards;
}

async function readEnd(store: Store, shard: number): Promise<ShardEnd> {
  const { bytes } = await store.read(layout.shard(shard));
  const text = bytes.toString("utf8").trimEnd();
  return shardEndSchema.parse(JSON.parse(text.slice(text.lastIndexOf("\n") + 1)));
}

async function* limited(chunks: AsyncIterable<Entry[]>, limit: number | null, taken: number, signal: AbortSignal) {
  let left = (limit ?? Number.POSITIVE_INFINITY) - taken;
  if (left <= 0) return;
  for await (const chunk of chunks) {
    signal.throwIfAborted();
    yield chunk.length > left ? chunk.slice(0, left) : chunk;
    left -= chunk.length;
    if (left <= 0) return;
  }
}

/** How much a record adds to its shard: texts, what is kept, and of what the job gives every record the results. */
function textWeight(task: JobTaskSpec): (record: InputRecord) => number {
  const source = textsOf(task);
  const given = source && "given" in source ? source.given.length * TEXT_RESULT_WEIGHT : 0;
  return ({ texts = [], kept }) => {
    const own = texts.reduce((sum, text) => sum + text.length + TEXT_RESULT_WEIGHT, 0);
    return given + own + (kept ? JSON.stringify(kept).length : 0);
  };
}

/** Looks as far ahead as it takes to know whether the job is small; `rest` gives everything, from the start. */
async function chooseSize(chunks: AsyncGenerator<Entry[]>, fixed: number | null, slots: number) {
  if (fixed !== null) return { size: fixed, rest: chunks };
  const wanted = Math.max(SHARDS_WANTED, 2 * slots);
  const ahead: Entry[][] = [];
  let count = 0;
  while (count < DEFAULT_SHARD_SIZE * wanted) {
    const next = await chunks.next();
    if (next.done) break;
    ahead.push(next.value);
    count += next.value.length;
  }
  const size = Math.min(DEFAULT_SHARD_SIZE, Math.max(MIN_SHARD_SIZE, Math.ceil(count / wanted)));
  const rest = async function* () {
    yield* ahead.splice(0);
    yield* chunks;
  };
  return { size, rest: rest() };
}

/** What a job is: the spec that a user submits, and the objects that keep it. */
import * as z from "zod";
import { type ResultRow, scoresOf } from "./record.ts";
import { jobTaskSchema, jobTaskSpecSchema } from "./task.ts";
import { costSchema, workSchema } from "./work.ts";

/** Raised when the meaning of an object that capfleet writes changes. */
export const SCHEMA_VERSION = 1;
export const CAPFLEET_VERSION = "0.1.0";

export const DEFAULT_SHARD_SIZE = 512;
export const MIN_SHARD_SIZE = 16;
export const MAX_SHARD_SIZE = 10_000;
export const HISTOGRAM_BINS = 20;
export const DEFAULT_MAX_ERROR_RATE = 0.5;
/** So many rows tell whether a job mostly fails. */
export const MAX_ERROR_RATE_ROWS = 1_000;
/** Shards whose sums stand in one `rollups/` object. */
export const ROLLUP_SHARDS = 1000;

/**
 * How an engine computes: all in float32; weights and activations in float16; weights in 8 bits, with the activations
 * of each linear layer rounded to 8 bits on their way in; or the same with a large language model's weights in 4 bits.
 */
export const PRECISIONS = ["fp32", "fp16", "int8", "int4"] as const;
export const precisionSchema = z.enum(PRECISIONS);
export type Precision = z.infer<typeof precisionSchema>;

/** A model as a job pins it. `digest` names the engine: checkpoint, graphs, precision and runtime (see models/). */
export const engineRefSchema = z.object({
  model: z.string(),
  digest: z.string(),
  checkpoint: z.string(),
  precision: precisionSchema,
});
export type EngineRef = z.infer<typeof engineRefSchema>;

/** `normal` jobs get nine tenths of a busy fleet, `bulk` jobs the rest. */
export const LANE_WEIGHTS = { normal: 9, bulk: 1 } as const;
export const laneSchema = z.enum(["normal", "bulk"]);
export type Lane = z.infer<typeof laneSchema>;

/**
 * What a job reads: every image below a prefix; a manifest, one record a line (JSONL), a row (CSV, TSV, Parquet); or tar
 * shards as img2dataset and WebDataset write them.
 */
export const INPUT_KINDS = ["prefix", "jsonl", "csv", "parquet", "webdataset"] as const;
export const inputSchema = z.object({
  kind: z.enum(INPUT_KINDS),
  uri: z.string(),
  /**
   * Prefixes: only images that are not in the index of the dataset at `root` as they are now. `index`: its name there; null
   * where there is none, or where it was made by other models or options.
   */
  since: z.object({ root: z.string(), index: z.string().nullable() }).nullable().default(null),
  /** Manifests: the fields that hold a record's image and, where there is such a field, its id. */
  columns: z.object({ image: z.string().default("image"), id: z.string().default("id") }).prefault({}),
  /** Manifests, webdataset: further fields (of a tar: `txt`, or fields of the json) that a result row gets as `kept`. */
  keep: z.array(z.string()).default([]),
});
export type Input = z.infer<typeof inputSchema>;

/** What is written beside the rows: nothing more, or each shard's labelled rows as a Parquet file, or as a tar with images. */
export const FORMATS = ["jsonl", "parquet", "webdataset"] as const;
export const formatSchema = z.enum(FORMATS);
export type Format = z.infer<typeof formatSchema>;

export const jobSpecSchema = z.object({
  task: jobTaskSpecSchema,
  /** One per role of the task, in their order; see `rolesOf`. */
  engines: z.array(engineRefSchema).min(1).max(2),
  input: inputSchema,
  limit: z.number().int().min(1).nullable(),
  format: formatSchema.default("jsonl"),
  /** Records per shard; null: 512, fewer in a small job. */
  shardSize: z.number().int().min(1).max(MAX_SHARD_SIZE).nullable(),
  lane: laneSchema,
  /** What images, other than https, must begin with: the submitter may read nothing else. Null: whatever a worker can read. */
  readable: z.array(z.string()).nullable().default(null),
});
export type JobSpec = z.infer<typeof jobSpecSchema>;

/** `<out>/job.json`: written once, with If-None-Match; whoever writes it owns the output. */
export const jobFileSchema = z.object({
  schema: z.literal(SCHEMA_VERSION),
  id: z.string(),
  capfleet: z.string(),
  created: z.iso.datetime(),
  fingerprint: z.string(),
  spec: jobSpecSchema,
});
export type JobFile = z.infer<typeof jobFileSchema>;

/** What the user wants of a job. */
export const intentSchema = z.enum(["run", "paused", "cancelled"]);
export type Intent = z.infer<typeof intentSchema>;

/** `<state>/jobs/<id>.json`: where the job is and what is wanted of it; changed with If-Match. */
export const jobStateSchema = z.object({
  schema: z.literal(SCHEMA_VERSION),
  id: z.string(),
  out: z.string(),
  created: z.iso.datetime(),
  /** `local`: the process that `capfleet run` started looks after it; `fleet`: `capfleet serve` does. */
  runner: z.enum(["local", "fleet"]),
  /** local: the folders of the engines' checkpoints, in their order. */
  checkpoints: z.array(z.string()).nullable(),
  intent: intentSchema,
  /** How often the rows that failed, and may succeed, have been asked for again. */
  retries: z.number().int().default(0),
  /** What the attempts that have ended took; null: none has, or an older version did them. */
  work: workSchema.nullable().default(null),
  /** The job fails where a larger part of its rows does, once there are `MAX_ERROR_RATE_ROWS`. */
  maxErrorRate: z.number().min(0).max(1).default(DEFAULT_MAX_ERROR_RATE),
  /** Set once, when nothing is left to do. */
  ended: z.enum(["finished", "cancelled", "failed"]).nullable(),
  /** Why it failed. */
  reason: z.object({ code: z.string(), message: z.string() }).nullable(),
});
export type JobState = z.infer<typeof jobStateSchema>;

/** `<out>/plan.json`: the plan is whole. */
export const planSchema = z.object({ shards: z.number().int(), records: z.number().int(), seconds: z.number() });
export type Plan = z.infer<typeof planSchema>;

/** Of the texts of one origin: how many are kept and dropped, and how many have which probability to match. */
export const pairSumsSchema = z.object({
  kept: z.number().int(),
  dropped: z.number().int(),
  /** Equal parts of 0 to 1; 1 itself is in the last. */
  histogram: z.array(z.number().int()).length(HISTOGRAM_BINS),
});
export type PairSums = z.infer<typeof pairSumsSchema>;

/** Counts of committed rows; `errors` by code, `warned` those with warnings. */
export const sumsSchema = z.object({
  rows: z.number().int(),
  failed: z.number().int(),
  warned: z.number().int().default(0),
  errors: z.record(z.string(), z.number().int()),
  /** Tasks whose rows have scores (see `scoresOf`): how many have which, in equal parts of 0 to 1; 1 itself is in the last. */
  scores: z.array(z.number().int()).length(HISTOGRAM_BINS).optional(),
  /** capfilt, filter. */
  pairs: z.object({ web: pairSumsSchema, synthetic: pairSumsSchema }).optional(),
  /** Jobs with a format beside JSONL: the files that the rows name, one a shard that has labelled rows. */
  files: z.number().int().optional(),
});
export type Sums = z.infer<typeof sumsSchema>;

/** `<out>/rollups/NNNNNN.json`: the sums of `shards` shards from `from` on. */
export const rollupSchema = sumsSchema.extend({
  from: z.number().int(),
  shards: z.number().int(),
  /** `JobState.retries` when they were added up: after another retry they no longer hold. */
  retries: z.number().int().default(0),
  /** What this attempt of the job took. */
  work: workSchema.optional(),
});
export type Rollup = z.infer<typeof rollupSchema>;

/** `<out>/summary.json`. */
export const summarySchema = sumsSchema.extend({
  schema: z.literal(SCHEMA_VERSION),
  id: z.string(),
  state: z.enum(["finished", "cancelled", "failed"]),
  reason: z.object({ code: z.string(), message: z.string() }).nullable(),
  task: jobTaskSchema,
  records: z.number().int().nullable(),
  shards: z.number().int(),
  retries: z.number().int().default(0),
  succeeded: z.number().int(),
  created: z.iso.datetime(),
  ended: z.iso.datetime(),
  /** From submission to the end, pauses included. */
  seconds: z.number(),
  /** What all attempts took; `cost` is null where nothing was measured. */
  work: workSchema.optional(),
  cost: costSchema.nullable().default(null),
  provenance: z.object({
    capfleet: z.string(),
    schema: z.number(),
    engines: z.array(engineRefSchema),
    fingerprint: z.string(),
  }),
});
export type Summary = z.infer<typeof summarySchema>;

export const addSums = (a: Sums, b: Sums): Sums => {
  const errors = { ...a.errors };
  for (const [code, n] of Object.entries(b.errors)) errors[code] = (errors[code] ?? 0) + n;
  const pairs = a.pairs && b.pairs ? addPairs(a.pairs, b.pairs) : (a.pairs ?? b.pairs);
  const scores = a.scores && b.scores ? addBins(a.scores, b.scores) : (a.scores ?? b.scores);
  const sums = { rows: a.rows + b.rows, failed: a.failed + b.failed, warned: a.warned + b.warned, errors };
  const files = (a.files ?? 0) + (b.files ?? 0);
  return { ...sums, ...(scores && { scores }), ...(pairs && { pairs }), ...(files > 0 && { files }) };
};

type Pairs = NonNullable<Sums["pairs"]>;
const noBins = () => Array<number>(HISTOGRAM_BINS).fill(0);
/** A similarity may come out of its range by a rounding error. */
const binOf = (value: number) => Math.max(0, Math.min(HISTOGRAM_BINS - 1, Math.floor(value * HISTOGRAM_BINS)));
const addBins = (a: number[], b: number[]) => a.map((count, i) => count + b[i]!);
const noPairs = (): PairSums => ({ kept: 0, dropped: 0, histogram: noBins() });
const addOrigin = (a: PairSums, b: PairSums): PairSums => ({
  kept: a.kept + b.kept,
  dropped: a.dropped + b.dropped,
  histogram: addBins(a.histogram, b.histogram),
});
const addPairs = (a: Pairs, b: Pairs): Pairs => ({
  web: addOrigin(a.web, b.web),
  synthetic: addOrigin(a.synthetic, b.synthetic),
});

export const NO_SUMS: Sums = { rows: 0, failed: 0, warned: 0, errors: {} };

/** Of the rows of one shard. */
export function sumRows(rows: Iterable<Omit<ResultRow, "id" | "image">>): Sums {
  const sums: Sums = { ...NO_SUMS, errors: {} };
  for (const row of rows) {
    const { error, warnings, pairs, data } = row;
    sums.rows += 1;
    if (warnings) sums.warned += 1;
    if (data) sums.files = 1;
    if (pairs) sums.pairs ??= { web: noPairs(), synthetic: noPairs() };
    for (const { origin, itm, kept } of pairs ?? []) {
      const counts = sums.pairs![origin];
      counts[kept ? "kept" : "dropped"] += 1;
      counts.histogram[binOf(itm)]! += 1;
    }
    if (!pairs) {
      for (const score of scoresOf(row)) {
        sums.scores ??= noBins();
        sums.scores[binOf(score)]! += 1;
      }
    }
    if (!error) continue;
    sums.failed += 1;
    sums.errors[error.code] = (sums.errors[error.code] ?? 0) + 1;
  }
  return sums;
}

/** The fleet in figures, as the reconciler sees it: in its last round, and over the last hour. Kept in Redis alone. */
import type { Redis } from "ioredis";
import * as z from "zod";
import { engineRefSchema } from "../contract/job.ts";
import { keys } from "./names.ts";
import { JOB_STATES } from "./progress.ts";

/** What of a set's work is to be done now: of jobs that run and are not blocked. */
export const loadSchema = z.object({
  /** Planned and not committed. */
  records: z.number().int(),
  shards: z.number().int(),
  /** Worker-seconds that they take, as far as that is known. */
  seconds: z.number(),
  /** Jobs of which it is not: nothing like them has been measured, or planning has just begun. */
  unknown: z.number().int(),
  /** Blocked jobs: each needs a worker now and then, to see whether the trouble has gone. */
  probes: z.number().int(),
});
export type Load = z.infer<typeof loadSchema>;

export const figuresSchema = z.object({
  /** Jobs by state: those that it looks after, and those that have ended since it began. */
  jobs: z.partialRecord(z.enum(JOB_STATES), z.number().int()),
  /** Committed since it began. */
  rows: z.object({ labelled: z.number().int(), failed: z.number().int() }),
  /** For each set of engines: records planned and not labelled, shards in Redis. */
  backlog: z.array(
    z.object({
      engines: z.string(),
      models: z.array(engineRefSchema.pick({ model: true, precision: true, digest: true })).default([]),
      jobs: z.number().int(),
      records: z.number().int(),
      shards: z.number().int(),
      /**
       * Measured lately, older work counting less and less: a worker labels `rows` / `workerSeconds` a second. Both 0
       * before anything is.
       */
      rows: z.number().default(0),
      workerSeconds: z.number().default(0),
      /** Null: an older version does not tell. */
      load: loadSchema.nullable().default(null),
      /** Live workers that have a shard of it in hand. */
      busy: z.number().int().default(0),
    }),
  ),
  roundSeconds: z.number(),
  /** Jobs that could not be read in the last minutes: nobody knows what they want. */
  unread: z.number().int().default(0),
});
export type FleetFigures = z.infer<typeof figuresSchema>;

/** What happened in the `SAMPLE_SECONDS` up to `at`. */
export const sampleSchema = z.object({
  /** Milliseconds since 1970. */
  at: z.number().int(),
  /** Rows of jobs that were labelled or failed, a second. */
  rate: z.number(),
  workers: z.number().int(),
  /** Records planned and not labelled. */
  backlog: z.number().int(),
});
export type FleetSample = z.infer<typeof sampleSchema>;

export const SAMPLE_SECONDS = 10;
const SAMPLES = 3_600 / SAMPLE_SECONDS;

export async function writeFigures(redis: Redis, figures: FleetFigures): Promise<void> {
  await redis.set(keys.figures(), JSON.stringify(figures), "EX", 60);
}

export async function readFigures(redis: Redis): Promise<FleetFigures | null> {
  const value = await redis.get(keys.figures());
  const parsed = value === null ? null : figuresSchema.safeParse(JSON.parse(value));
  return parsed?.success ? parsed.data : null;
}

/** The oldest goes where an hour is full. */
export async function addSample(redis: Redis, sample: FleetSample): Promise<void> {
  const name = keys.history();
  await redis
    .multi()
    .rpush(name, JSON.stringify(sample))
    .ltrim(name, -SAMPLES, -1)
    .expire(name, 2 * 3_600)
    .exec();
}

/** The last hour's, the oldest first; where nobody has looked there is none. */
export async function readSamples(redis: Redis): Promise<FleetSample[]> {
  const since = Date.now() - SAMPLES * SAMPLE_SECONDS * 1_000;
  const lines = await redis.lrange(keys.history(), 0, -1);
  return lines.flatMap((line) => {
    const parsed = sampleSchema.safeParse(JSON.parse(line));
    return parsed.success && parsed.data.at >= since ? [parsed.data] : [];
  });
}

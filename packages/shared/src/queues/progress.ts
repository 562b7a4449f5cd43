/** A job's live figures, as the reconciler last saw them. Kept in Redis for `status` and `watch`, for a minute. */
import type { Redis } from "ioredis";
import * as z from "zod";
import { sumsSchema } from "../contract/job.ts";
import { costSchema } from "../contract/work.ts";
import { keys } from "./names.ts";

export const JOB_STATES = ["planning", "running", "paused", "blocked", "cancelled", "finished", "failed"] as const;

export const progressSchema = z.object({
  state: z.enum(JOB_STATES),
  /** Records planned so far; `total` once the plan is whole. */
  planned: z.number().int(),
  total: z.number().int().nullable(),
  /** Rows labelled, failed ones included; `committed` of them are in object storage. */
  done: z.number().int(),
  committed: z.number().int(),
  failed: z.number().int(),
  /** What the committed rows hold. */
  sums: sumsSchema.pick({ errors: true, scores: true, pairs: true }).default({ errors: {} }),
  /** Rows per second over the last half minute; null before there is one. */
  rate: z.number().nullable(),
  etaSeconds: z.number().nullable(),
  /** Null before anything is measured. */
  cost: costSchema.nullable().default(null),
  /** Why nothing moves, where nothing does. */
  waiting: z.string().nullable(),
  /** The shard error that the job keeps meeting. */
  reason: z.object({ code: z.string(), message: z.string() }).nullable(),
});
export type Progress = z.infer<typeof progressSchema>;

export async function writeProgress(redis: Redis, job: string, progress: Progress): Promise<void> {
  await redis.set(keys.progress(job), JSON.stringify(progress), "EX", 60);
}

export async function readProgress(redis: Redis, job: string): Promise<Progress | null> {
  const value = await redis.get(keys.progress(job));
  const parsed = value === null ? null : progressSchema.safeParse(JSON.parse(value));
  return parsed?.success ? parsed.data : null;
}

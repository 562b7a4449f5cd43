/**
 * What workers did with shards, told to the reconciler so that it need not read every result. Results in object storage
 * are the truth: a lost report costs one read, never a row.
 */
import type { Redis } from "ioredis";
import * as z from "zod";
import { sumsSchema } from "../contract/job.ts";
import { timedSchema } from "../contract/work.ts";
import { fromRedis } from "./connection.ts";
import { keys } from "./names.ts";

export const reportSchema = z.discriminatedUnion("outcome", [
  /** This worker's results are the ones that stand. `work`: older workers don't tell. */
  z.object({
    outcome: z.literal("committed"),
    shard: z.number().int(),
    sums: sumsSchema,
    work: timedSchema.optional(),
  }),
  /** A shard error: the shard has to be tried again. */
  z.object({ outcome: z.literal("failed"), shard: z.number().int(), code: z.string(), message: z.string() }),
]);
export type Report = z.infer<typeof reportSchema>;

const KEEP_SECONDS = 24 * 3600;
const BATCH = 1_000;

/** Throws REDIS_REFUSED and REDIS_UNREACHABLE. */
export async function sendReport(redis: Redis, job: string, report: Report): Promise<void> {
  const told = redis
    .multi()
    .rpush(keys.reports(job), JSON.stringify(report))
    .expire(keys.reports(job), KEEP_SECONDS)
    .publish(keys.wake(), job);
  await fromRedis(told.exec());
}

/** Takes the reports that have come in, in order. */
export async function takeReports(redis: Redis, job: string): Promise<Report[]> {
  const lines = (await redis.lpop(keys.reports(job), BATCH)) ?? [];
  return lines.flatMap((line) => {
    const parsed = reportSchema.safeParse(JSON.parse(line));
    return parsed.success ? [parsed.data] : [];
  });
}

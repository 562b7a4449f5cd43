/** The fleet in figures, as the reconciler saw it in its last round. Kept in Redis for a minute. */
import type { Redis } from "ioredis";
import * as z from "zod";
import { keys } from "./names.ts";
import { JOB_STATES } from "./progress.ts";

export const figuresSchema = z.object({
  /** Jobs by state: those that it looks after, and those that have ended since it began. */
  jobs: z.partialRecord(z.enum(JOB_STATES), z.number().int()),
  /** Committed since it began. */
  rows: z.object({ labelled: z.number().int(), failed: z.number().int() }),
  /** For each set of engines: records planned and not labelled, shards in Redis. */
  backlog: z.array(
    z.object({
      engines: z.string(),
      jobs: z.number().int(),
      records: z.number().int(),
      shards: z.number().int(),
      /**
       * Measured lately, older work counting less and less: a worker labels `rows` / `workerSeconds` a second. Both 0
       * before anything is.
       */
      rows: z.number().default(0),
      workerSeconds: z.number().default(0),
    }),
  ),
  roundSeconds: z.number(),
});
export type FleetFigures = z.infer<typeof figuresSchema>;

export async function writeFigures(redis: Redis, figures: FleetFigures): Promise<void> {
  await redis.set(keys.figures(), JSON.stringify(figures), "EX", 60);
}

export async function readFigures(redis: Redis): Promise<FleetFigures | null> {
  const value = await redis.get(keys.figures());
  const parsed = value === null ? null : figuresSchema.safeParse(JSON.parse(value));
  return parsed?.success ? parsed.data : null;
}

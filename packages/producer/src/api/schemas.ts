/** What the API's answers look like. Times are ISO 8601, names are snake_case. */
import { FORMATS, JOB_TASKS, pairSumsSchema, precisionSchema, sumsSchema, taskSchema } from "@capfleet/shared/contract";
import { JOB_STATES } from "@capfleet/shared/queues";
import * as z from "zod";
import { errorSchema } from "./errors.ts";

const count = z.int().min(0);

export const jobSchema = z
  .strictObject({
    id: z.string().meta({ examples: ["job_01K9ZJ5W3N8Q4T6V7X8Y9Z0A1B"] }),
    state: z.enum(JOB_STATES).meta({ description: "The last three are final" }),
    task: z.enum(JOB_TASKS),
    models: z.array(z.strictObject({ model: z.string(), precision: precisionSchema })),
    input: z.string(),
    output: z.string(),
    lane: z.enum(["normal", "bulk"]),
    format: z.enum(FORMATS),
    created_at: z.iso.datetime(),
    counts: z.strictObject({
      planned: count.meta({ description: "Records planned so far" }),
      total: count.nullable().meta({ description: "Records in all; null until the plan is whole" }),
      done: count.meta({ description: "Rows labelled, failed ones included" }),
      committed: count.meta({ description: "Rows in object storage" }),
      failed: count.meta({ description: "Rows with an error" }),
    }),
    errors: z.record(z.string(), count).meta({ description: "Committed rows that failed, by code" }),
    scores: sumsSchema.shape.scores.unwrap().nullable().meta({
      description:
        "How many of the committed rows' texts have which score, in equal parts of 0 to 1 (itc: of -1 to 1). Of captions and answers it is e^score, the geometric mean of their tokens' probabilities; null: there is none",
    }),
    pairs: z
      .strictObject({ web: pairSumsSchema.strict(), synthetic: pairSumsSchema.strict() })
      .nullable()
      .meta({ description: "capfilt, filter: texts by origin, and how many have which probability to match" }),
    rate: z.number().nullable().meta({ description: "Rows per second over the last half minute" }),
    eta_seconds: z.number().nullable(),
    cost: z
      .strictObject({
        worker_seconds: z.number().meta({ description: "Time that workers were at work on it so far" }),
        spent: z.number().nullable().meta({ description: "So far, in the currency of the workers' prices" }),
        per_1000: z.number().nullable().meta({ description: "Per 1,000 rows" }),
        estimated: z.number().nullable().meta({ description: "Of the whole job; null until its length is known" }),
        is_estimate: z
          .boolean()
          .meta({ description: "Part of the work was not timed, and is taken to be like the rest" }),
      })
      .nullable()
      .meta({ description: "Null before anything is measured; amounts are null where workers have no price" }),
    waiting: z.string().nullable().meta({ description: "Why nothing moves, where nothing does" }),
    reason: z
      .strictObject({ code: z.string(), message: z.string() })
      .nullable()
      .meta({ description: "The error that a blocked job keeps meeting, or that a failed one ended with" }),
  })
  .meta({ id: "Job" });
export type JobView = z.infer<typeof jobSchema>;

/** A page's cursor goes into the next request as it is. */
const nextCursor = z
  .string()
  .nullable()
  .meta({ description: "Where the next page begins; null: this is the last one" });

export const jobPageSchema = z
  .strictObject({ jobs: z.array(jobSchema), next_cursor: nextCursor })
  .meta({ id: "JobPage" });

export const modelSchema = z
  .strictObject({
    name: z.string(),
    bundled: z.boolean(),
    tasks: z.array(taskSchema),
    precisions: z.array(precisionSchema).meta({ description: "As which workers have registered it, or it can run" }),
    max_new_tokens: z.int(),
  })
  .meta({ id: "Model" });
export const modelsSchema = z.strictObject({ models: z.array(modelSchema) });

const engineSchema = z.strictObject({ model: z.string(), precision: precisionSchema, digest: z.string() });
export const fleetSchema = z
  .strictObject({
    workers: z.array(
      z.strictObject({
        id: z.string(),
        host: z.string(),
        version: z.string(),
        engines: z.array(engineSchema),
        slots: count.meta({ description: "Shards that it works on at once" }),
        price_per_hour: z.number().nullable().meta({ description: "Of this worker; null: it has none" }),
        in_flight: z.strictObject({ shards: count, rows: count }),
      }),
    ),
    backlog: z.array(
      z.strictObject({
        engines: z.string().meta({ description: "Digests of the engines that the work needs" }),
        jobs: count,
        records: count.meta({ description: "Records planned and not labelled" }),
        shards: count.meta({ description: "Shards handed out or waiting to be, at the moment" }),
        rate_per_worker: z.number().nullable().meta({ description: "Rows a second of one worker, as measured lately" }),
      }),
    ),
    autoscaling: z.array(
      z.strictObject({
        engines: z.string().meta({ description: "Digests of the engines that the work needs" }),
        models: z.array(z.string()),
        outstanding_records: count.meta({ description: "Planned and not committed, of jobs that run" }),
        backlog_seconds: z
          .number()
          .nullable()
          .meta({ description: "Worker-seconds that these take; null: nothing like it has been measured" }),
        rate_per_worker: z.number().nullable().meta({ description: "Rows a second of one worker at this work" }),
        wanted_workers: count.meta({ description: "For this set alone" }),
      }),
    ),
  })
  .meta({ id: "Fleet" });
export type FleetView = z.infer<typeof fleetSchema>;

export const wantedSchema = z
  .strictObject({ wanted_workers: count.meta({ description: "Workers with these models, whatever there are" }) })
  .meta({ id: "Wanted" });

export const historySchema = z
  .strictObject({
    interval_seconds: count,
    samples: z
      .array(
        z.strictObject({
          at: z.iso.datetime(),
          rows_per_second: z.number().meta({ description: "Rows of jobs that were labelled or failed" }),
          workers: count,
          backlog: count.meta({ description: "Records planned and not labelled" }),
        }),
      )
      .meta({ description: "The oldest first; where no producer was at work there are none" }),
  })
  .meta({ id: "FleetHistory" });

/** The answers that any route may give beside its own. */
export const errorResponses = (...statuses: number[]) =>
  Object.fromEntries([400, 401, 403, 429, 500, 503, ...statuses].map((status) => [status, errorSchema])) as Record<
    number,
    typeof errorSchema
  >;

/** A query's number: it comes as text. */
export const pageLimit = (most: number, usual: number) => z.coerce.number().int().min(1).max(most).default(usual);

/** Of a body or a query: no other fields, and a message that names those there are. */
export function fields<T extends z.core.$ZodLooseShape>(shape: T) {
  const error = ({ code, keys }: { code?: string | undefined; keys?: unknown }) =>
    code === "unrecognized_keys"
      ? `unknown field ${(keys as string[]).map((key) => JSON.stringify(key)).join(", ")} (known: ${Object.keys(shape).join(", ")})`
      : undefined;
  return z.strictObject(shape, { error: error as z.core.$ZodErrorMap });
}

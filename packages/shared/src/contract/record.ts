/** Records (a job's input rows) and result rows, as they stand in `shards/*.jsonl` and `results/*.jsonl`. */
import * as z from "zod";

export const rowErrorSchema = z.object({
  code: z.string(),
  message: z.string(),
  retryable: z.boolean(),
});
export type RowError = z.infer<typeof rowErrorSchema>;

/**
 * One input row. `id` is the source's own; `image` an absolute URI (`s3://bucket/key`, the key as it is, or
 * `file:///path`, percent-encoded), or null where the source's line was not a record: then `error` says why.
 */
export const recordSchema = z.object({
  id: z.string(),
  image: z.string().nullable(),
  error: rowErrorSchema.optional(),
});
export type InputRecord = z.infer<typeof recordSchema>;

/** Where a shard ends in its source: what the planner needs to go on after it. */
export const cursorSchema = z.discriminatedUnion("source", [
  /** A listing: the last key taken. */
  z.object({ source: z.literal("prefix"), after: z.string() }),
  /** A manifest: the offset in bytes of the next line, its line number (from 1), and the object's ETag. */
  z.object({ source: z.literal("manifest"), offset: z.number(), line: z.number(), etag: z.string() }),
]);
export type Cursor = z.infer<typeof cursorSchema>;

/** The last line of a shard file. `planned` counts the job's records up to and with this shard. */
export const shardEndSchema = z.object({
  records: z.number().int(),
  planned: z.number().int(),
  cursor: cursorSchema,
});
export type ShardEnd = z.infer<typeof shardEndSchema>;

/** One output row. Exactly one per record, in the record's position: the task's fields, or `error`. */
export const resultRowSchema = z.object({
  id: z.string(),
  image: z.string().nullable(),
  /** caption: the text. */
  caption: z.string().optional(),
  /** caption: mean natural-log probability of the caption's tokens, the end token included; at most 0. */
  score: z.number().optional(),
  error: rowErrorSchema.optional(),
});
export type ResultRow = z.infer<typeof resultRowSchema>;

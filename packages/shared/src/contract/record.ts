/** Records (a job's input rows) and result rows, as they stand in `shards/*.jsonl` and `results/*.jsonl`. */
import * as z from "zod";

export const rowErrorSchema = z.object({
  code: z.string(),
  message: z.string(),
  retryable: z.boolean(),
  /** Which attempt of the job it failed in, from the second on: each `capfleet retry` is one. */
  attempt: z.number().int().optional(),
});
export type RowError = z.infer<typeof rowErrorSchema>;

/**
 * One input row. `id` is the source's own; `image` an absolute URI (`s3://bucket/key`, the key as it is, `file:///path`,
 * percent-encoded, or `https://…`), or null where the source's line was not a record (then `error` says why) or has no
 * image because the task needs none.
 */
export const recordSchema = z.object({
  id: z.string(),
  image: z.string().nullable(),
  /** Incremental jobs: the image's ETag when it was listed. */
  etag: z.string().optional(),
  /** Where in the object `image` the image's bytes are, if it is a tar; `name`: what the tar calls it. */
  member: z.object({ name: z.string(), offset: z.number().int(), size: z.number().int(), etag: z.string() }).optional(),
  /** What `Input.keep` asks for, as JSON. */
  kept: z.record(z.string(), z.json()).optional(),
  /** What the task's column held: questions, or texts to compare with the image. Absent where the job gives them. */
  texts: z.array(z.string()).optional(),
  error: rowErrorSchema.optional(),
});
export type InputRecord = z.infer<typeof recordSchema>;

/** Where a shard ends in its source: what the planner needs to go on after it. */
export const cursorSchema = z.discriminatedUnion("source", [
  /** A listing: the last key taken. */
  z.object({ source: z.literal("prefix"), after: z.string() }),
  /** Manifests of lines: the file, the offset in bytes of the next line in it, its line number (from 1), the file's ETag. */
  z.object({
    source: z.literal("manifest"),
    file: z.string(),
    offset: z.number(),
    line: z.number(),
    etag: z.string(),
  }),
  /** Parquet: the file, the number (from 0) of the next row in it, the file's ETag. */
  z.object({ source: z.literal("parquet"), file: z.string(), row: z.number(), etag: z.string() }),
  /** Tar shards: the tar, the offset in bytes of the next header in it, and the tar's ETag. */
  z.object({ source: z.literal("webdataset"), tar: z.string(), offset: z.number(), etag: z.string() }),
]);
export type Cursor = z.infer<typeof cursorSchema>;

/** The last line of a shard file. `planned` counts the job's records up to and with this shard. */
export const shardEndSchema = z.object({
  records: z.number().int(),
  planned: z.number().int(),
  cursor: cursorSchema,
});
export type ShardEnd = z.infer<typeof shardEndSchema>;

/** A text of a dataset that is being cleaned; `itm`: how likely it is to match the image. */
export const pairSchema = z.object({
  text: z.string(),
  /** From the dataset, or made for the image. */
  origin: z.enum(["web", "synthetic"]),
  itm: z.number(),
  kept: z.boolean(),
});
export type Pair = z.infer<typeof pairSchema>;

/** One output row. Exactly one per record, in the record's position: the task's fields, or `error`. */
export const resultRowSchema = z.object({
  id: z.string(),
  image: z.string().nullable(),
  /** Where `image` is a tar: the name of the image in it. */
  member: z.string().optional(),
  /** Jobs with a format beside JSONL: the object below the output that has this shard's labelled rows (`data/…`). */
  data: z.string().optional(),
  /** Columns of the input that were to be kept. */
  kept: z.record(z.string(), z.json()).optional(),
  /** caption: the text, the best one of several. */
  caption: z.string().optional(),
  /** caption, vqa: mean natural-log probability of the text's tokens, the end token included; at most 0. */
  score: z.number().optional(),
  /** caption: where several were asked for, all of them, the best first (as drawn, where they are samples). */
  captions: z.array(z.object({ text: z.string(), score: z.number() })).optional(),
  /** vqa: the answer to the only question. */
  answer: z.string().optional(),
  /** vqa: where the record has several questions, one answer each. */
  answers: z.array(z.object({ question: z.string(), answer: z.string(), score: z.number() })).optional(),
  /** itm: the probability that the only text matches. */
  itm: z.number().optional(),
  /** itc: cosine similarity of image and only text, -1 to 1. */
  itc: z.number().optional(),
  /** itm, itc: where the record has several texts, each one's probability or similarity. */
  scores: z.array(z.number()).optional(),
  /** embed: the vector, of length 1, where there is one. */
  embedding: z.array(z.number()).optional(),
  /** embed: where there are several: one per text, or all that the model has for an image (BLIP-2: one per query). */
  embeddings: z.array(z.array(z.number())).optional(),
  /** capfilt, filter: each text, and whether it stays. */
  pairs: z.array(pairSchema).optional(),
  /** What was done to the record that its owner should know, such as a text that was cut. */
  warnings: z.array(z.string()).optional(),
  error: rowErrorSchema.optional(),
});
export type ResultRow = z.infer<typeof resultRowSchema>;

/**
 * What a row's texts scored, each from 0 to 1: of captions and answers the geometric mean of their tokens' probabilities, of
 * itm and of texts that are cleaned the probability to match, of itc the cosine similarity, from -1 to 1, as a part of that. Rows
 * with `scores`, of many texts that compete, have none.
 */
export function scoresOf(row: Omit<ResultRow, "id" | "image">): number[] {
  const { score, answers, itm, itc, pairs } = row;
  if (answers) return answers.map((answer) => Math.exp(answer.score));
  if (score !== undefined) return [Math.exp(score)];
  if (pairs) return pairs.map((pair) => pair.itm);
  if (itm !== undefined) return [itm];
  return itc === undefined ? [] : [(itc + 1) / 2];
}

/** Whether a row is to be done again once its job has been retried so many times: it failed, may succeed, and was not yet. */
export const needsRetry = ({ error }: Pick<ResultRow, "error">, retries: number): boolean =>
  error?.retryable === true && (error.attempt ?? 1) <= retries;

/** What a dataset of incremental runs keeps beside the runs themselves: what it stands for, and where each image's row is. */
import * as z from "zod";
import { SCHEMA_VERSION } from "./job.ts";

/** Entries of an index in one object. */
export const INDEX_PART = 10_000;

/** `<root>/dataset.json`: changed with If-Match. */
export const datasetRootSchema = z.object({
  schema: z.literal(SCHEMA_VERSION),
  /** The prefix or folder that its images are in. */
  input: z.string(),
  /**
   * What a reader sees: the rows that the index of that name tells of, `entries` in all. `run` made it; `fingerprint` stands
   * for the task and the engines that all its rows come from.
   */
  current: z
    .object({ run: z.string(), index: z.string(), fingerprint: z.string(), entries: z.number().int() })
    .nullable(),
  /** The run that is under way; it counts for nothing once its job has ended. */
  pending: z.object({ run: z.string(), job: z.string() }).nullable(),
});
export type DatasetRoot = z.infer<typeof datasetRootSchema>;

/** A line of an index: the image's key below the input, its ETag when it was listed, and where its row is. */
export const indexEntrySchema = z.object({
  key: z.string(),
  etag: z.string(),
  run: z.string(),
  shard: z.number().int(),
  /** From 0, in the shard. */
  row: z.number().int(),
});
export type IndexEntry = z.infer<typeof indexEntrySchema>;

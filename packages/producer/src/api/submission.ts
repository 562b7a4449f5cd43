/** A job as it is submitted: the command line's options in snake_case; one that may be repeated is a list. */
import {
  FORMATS,
  JOB_TASKS,
  laneSchema,
  MAX_ANSWERS,
  MAX_BEAMS,
  MAX_CAPTIONS,
  MAX_NEW_TOKENS,
  MAX_SHARD_SIZE,
  MAX_TEXT_CHARACTERS,
  MAX_TEXTS,
  precisionSchema,
} from "@capfleet/shared/contract";
import * as z from "zod";
import { type AskedJob, askedJob, type JobOptions, type ModelOptions } from "../jobs/asked-job.ts";
import type { TaskOptions } from "../jobs/task-spec.ts";
import { checkWebhook, type Target } from "../webhooks/webhook.ts";
import { fields } from "./schemas.ts";

const someText = (most: number) => z.string().max(most).regex(/\S/, "must not be blank");
const text = someText(MAX_TEXT_CHARACTERS);
const column = someText(1_000);
const model = someText(200);
const location = someText(4_096);
const tokens = z.int().min(0).max(MAX_NEW_TOKENS);

export const submissionSchema = fields({
  task: z.enum(JOB_TASKS),
  model: model.optional().meta({ description: "Bundled or registered (GET /v1/models); default: the task's demo" }),
  captioner: model.optional().meta({ description: "capfilt: the model that makes captions" }),
  filter: model.optional().meta({ description: "capfilt, filter: the model that says which texts match" }),
  precision: precisionSchema.optional().meta({ description: "Default: what workers run the model as" }),
  input: location.meta({
    description: "A prefix of images, a manifest, or tar shards",
    examples: ["s3://photos/2026/"],
  }),
  output: location.meta({ description: "An empty prefix", examples: ["s3://labels/2026/"] }),
  image_column: column.optional(),
  id_column: column.optional(),
  keep: z.array(column).max(100).optional().meta({ description: "Further fields that every row gets as `kept`" }),
  limit: z.int().min(1).max(1e12).optional().meta({ description: "Only the first so many records" }),
  shard_size: z.int().min(1).max(MAX_SHARD_SIZE).optional(),
  incremental: z
    .boolean()
    .optional()
    .meta({ description: "Only images that are new or have changed; `output` is the dataset that all runs make" }),
  format: z.enum(FORMATS).optional().meta({ description: "What is written beside the JSONL rows" }),
  lane: laneSchema.optional(),
  max_error_rate: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .meta({ description: "The job fails where a larger part of its rows does" }),
  max_new_tokens: tokens.min(1).optional(),
  min_new_tokens: tokens.optional(),
  num_beams: z.int().min(1).max(MAX_BEAMS).optional(),
  length_penalty: z.number().min(-10).max(10).optional(),
  repetition_penalty: z.number().positive().max(100).optional(),
  sample: z.literal(true).optional().meta({ description: "Draw tokens at random; implied by the next four" }),
  temperature: z.number().positive().max(100).optional(),
  top_k: z.int().min(0).max(1e9).optional(),
  top_p: z.number().positive().max(1).optional(),
  seed: z.int().min(0).max(0xffffffff).optional(),
  num_captions: z.int().min(1).max(MAX_CAPTIONS).optional(),
  prompt: text.optional(),
  question: z.array(text).min(1).max(MAX_TEXTS).optional().meta({ description: "vqa: asked of every image" }),
  question_column: column.optional(),
  template: text.optional(),
  answer: z.array(text).min(1).max(MAX_ANSWERS).optional().meta({ description: "vqa: the only answers" }),
  text: z.array(text).min(1).max(MAX_TEXTS).optional().meta({ description: "itm, itc, filter, embed: of every image" }),
  text_column: column.optional(),
  threshold: z.number().min(0).max(1).optional(),
  webhook: fields({
    url: z
      .string()
      .max(2_000)
      .meta({ description: "https://, and public", examples: ["https://example.com/hook"] }),
    secret: z.string().min(16).max(200).optional().meta({ description: "Signs the calls; can't be read back" }),
  })
    .optional()
    .meta({ description: "Called when the job ends, and when it is blocked" }),
}).meta({ id: "Submission" });
export type Submission = z.infer<typeof submissionSchema>;

/** Throws WEBHOOK_FORBIDDEN. */
export function webhookOf({ webhook }: Submission, networks: readonly string[]): Target | null {
  if (!webhook) return null;
  checkWebhook(webhook.url, networks);
  return { url: webhook.url, secret: webhook.secret ?? null };
}

/** By the rules of `capfleet submit`. Throws INVALID_OPTION. */
export function askedOf({ task, input, output, webhook: _, ...options }: Submission): AskedJob {
  const asked: JobOptions = { out: output, ...camelOf(options) };
  return askedJob(task, input, asked, "fleet");
}

/** A body's fields as the options that they are. */
export function camelOf(options: object): TaskOptions & ModelOptions {
  const camel = Object.entries(options).map(([name, value]) => [
    name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
    value,
  ]);
  return Object.fromEntries(camel);
}

/** What a job asks of a model for each of its records: the task and its options. */
import * as z from "zod";

/** What a model can be asked for. */
export const TASKS = ["caption", "vqa", "itm", "itc", "embed"] as const;
export const taskSchema = z.enum(TASKS);
export type Task = z.infer<typeof taskSchema>;

/** The most texts (questions, candidate captions, closed answers) that a job or a record can give. */
export const MAX_TEXTS = 1_000;
export const MAX_ANSWERS = 10_000;
/** What a job's own texts may have together, in characters: every worker reads them with every shard. */
export const MAX_GIVEN_CHARACTERS = 1_000_000;
/** The longest text that a job can give, in characters; models read a few hundred tokens. */
export const MAX_TEXT_CHARACTERS = 10_000;
export const MAX_BEAMS = 16;
export const MAX_CAPTIONS = 16;
export const MAX_NEW_TOKENS = 512;

/**
 * Sampling in place of the likeliest token. The noise comes from `seed` and the record's id, so a record has the same
 * text in whatever batch it is.
 */
export const samplingSchema = z.object({
  seed: z.number().int().min(0).max(0xffffffff).default(0),
  /** Logits are divided by it; above 0. */
  temperature: z.number().positive().max(100).default(1),
  /** Only the so many likeliest tokens; 0: all. */
  topK: z.number().int().min(0).default(0),
  /** Only the likeliest tokens whose probabilities add up to it: above 0, at most 1. */
  topP: z.number().positive().max(1).default(1),
});
export type Sampling = z.infer<typeof samplingSchema>;

/** How texts are made, token by token. The options mean what they mean in transformers' GenerationConfig. */
export const decodingSchema = z.object({
  maxNewTokens: z.number().int().min(1).max(MAX_NEW_TOKENS).default(20),
  /** The end token can't come before so many tokens; at most `maxNewTokens`. */
  minNewTokens: z.number().int().min(0).max(MAX_NEW_TOKENS).default(0),
  /** 1: greedy (or sampling). */
  beams: z.number().int().min(1).max(MAX_BEAMS).default(1),
  /** Beams only: hypotheses are ranked by their log-probability / length ^ lengthPenalty. */
  lengthPenalty: z.number().min(-10).max(10).default(1),
  /** Above 1: tokens that are there already become less likely. */
  repetitionPenalty: z.number().positive().max(100).default(1),
  sampling: samplingSchema.nullable().default(null),
});
export type Decoding = z.infer<typeof decodingSchema>;

const text = z.string().min(1).max(MAX_TEXT_CHARACTERS);

/** Where a template of questions has the question. */
export const QUESTION_SLOT = "{question}";
export const templateSchema = text.refine(
  (given) => given.includes(QUESTION_SLOT),
  `a template has ${QUESTION_SLOT} in it`,
);

/**
 * Where a record's texts come from: the manifest's field of that name, which holds a text or a list of texts, or the
 * job itself, where all records have the same. Exactly one of the two.
 */
export const textSourceSchema = z.union([
  z.object({ column: z.string().min(1) }),
  z.object({ given: z.array(text).min(1).max(MAX_TEXTS) }),
]);
export type TextSource = z.infer<typeof textSourceSchema>;

export const taskSpecSchema = z.discriminatedUnion("name", [
  z.object({
    name: z.literal("caption"),
    decoding: decodingSchema,
    /** Captions per image: candidates of sampling, or the best of the beams. */
    captions: z.number().int().min(1).max(MAX_CAPTIONS).default(1),
    /** What every caption begins with, such as "a picture of". */
    prompt: text.nullable().default(null),
  }),
  z.object({
    name: z.literal("vqa"),
    decoding: decodingSchema,
    questions: textSourceSchema,
    /** What the model reads: the question takes the place of each `{question}`. Null: the model's own template. */
    template: templateSchema.nullable().default(null),
    /** The only answers there are, ranked by likelihood; null: any. */
    answers: z.array(text).min(1).max(MAX_ANSWERS).nullable().default(null),
  }),
  z.object({ name: z.literal("itm"), texts: textSourceSchema }),
  z.object({ name: z.literal("itc"), texts: textSourceSchema }),
  z.object({ name: z.literal("embed"), texts: textSourceSchema.nullable().default(null) }),
]);
/** embed: `texts` null embeds the images, otherwise the texts; then records need no image. */
export type TaskSpec = z.infer<typeof taskSpecSchema>;

/**
 * What a job can be asked for: what one model is, or one of the two that clean a dataset as BLIP's authors did theirs
 * (CapFilt; Li et al. 2022, section 3.3): the images' own texts, and with `capfilt` captions made for them, are kept where
 * they match.
 */
export const JOB_TASKS = [...TASKS, "capfilt", "filter"] as const;
export const jobTaskSchema = z.enum(JOB_TASKS);
export type JobTask = z.infer<typeof jobTaskSchema>;

/** A text is kept whose probability to match is at least so much. */
const threshold = z.number().min(0).max(1).default(0.5);
export const jobTaskSpecSchema = z.discriminatedUnion("name", [
  ...taskSpecSchema.options,
  z.object({
    name: z.literal("capfilt"),
    /** The images' own texts; null: only captions are made. A record may lack its text. */
    texts: textSourceSchema.nullable(),
    decoding: decodingSchema,
    /** Captions made per image. */
    captions: z.number().int().min(1).max(MAX_CAPTIONS).default(1),
    /** What every caption begins with. */
    prompt: text.nullable().default(null),
    threshold,
  }),
  z.object({ name: z.literal("filter"), texts: textSourceSchema, threshold }),
]);
export type JobTaskSpec = z.infer<typeof jobTaskSpecSchema>;
export type CapFiltSpec = Extract<JobTaskSpec, { name: "capfilt" | "filter" }>;

/** Where the records' texts come from; null for a task that has none. */
export function textsOf(task: JobTaskSpec): TextSource | null {
  if (task.name === "caption") return null;
  return task.name === "vqa" ? task.questions : task.texts;
}

/** Whether the task looks at the records' images. */
export const needsImage = (task: JobTaskSpec): boolean => task.name !== "embed" || task.texts === null;

/** Whether a record without a text is one that the task can do nothing with. */
export const needsText = (task: JobTaskSpec): boolean => task.name !== "capfilt";

/**
 * What each of a job's engines is asked for, in the order of `JobSpec.engines`. `capfilt` has two: the captioner, and
 * the model that filters.
 */
export function rolesOf(task: JobTaskSpec): TaskSpec[] {
  // The texts to match are known only once the captions are there: they are given with each record.
  const matching: TaskSpec = { name: "itm", texts: { column: "" } };
  if (task.name === "filter") return [matching];
  if (task.name !== "capfilt") return [task];
  const { decoding, captions, prompt } = task;
  return [{ name: "caption", decoding, captions, prompt }, matching];
}

/** What `run` and `submit` ask of a model: the options of each task, and the TaskSpec that they make. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { many, numberAbove0, numberFrom, someText, wholeNumber } from "@capfleet/shared/command-line";
import {
  CapfleetError,
  type Decoding,
  decodingSchema,
  JOB_TASKS,
  type JobTask,
  type JobTaskSpec,
  MAX_ANSWERS,
  MAX_BEAMS,
  MAX_CAPTIONS,
  MAX_GIVEN_CHARACTERS,
  MAX_NEW_TOKENS,
  MAX_TEXT_CHARACTERS,
  MAX_TEXTS,
  QUESTION_SLOT,
  type TextSource,
} from "@capfleet/shared/contract";
import type { Command } from "commander";

/** As commander hands them over; what was not given is not there. */
export interface TaskOptions {
  maxNewTokens?: number;
  minNewTokens?: number;
  numBeams?: number;
  lengthPenalty?: number;
  repetitionPenalty?: number;
  sample?: boolean;
  temperature?: number;
  topK?: number;
  topP?: number;
  seed?: number;
  numCaptions?: number;
  prompt?: string;
  question?: string[];
  questionColumn?: string;
  template?: string;
  answer?: string[];
  answers?: string;
  text?: string[];
  textColumn?: string;
  threshold?: number;
}

const SAMPLING = ["sample", "temperature", "topK", "topP", "seed"] as const;
const GENERATION = [
  ...["maxNewTokens", "minNewTokens", "numBeams", "lengthPenalty", "repetitionPenalty"],
  ...SAMPLING,
] as readonly (keyof TaskOptions)[];
const TEXTS = ["text", "textColumn"] as const;
const OPTIONS: Record<JobTask, readonly (keyof TaskOptions)[]> = {
  caption: [...GENERATION, "numCaptions", "prompt"],
  vqa: ["question", "questionColumn", "template", "answer", "answers", ...GENERATION],
  itm: TEXTS,
  itc: TEXTS,
  embed: TEXTS,
  capfilt: [...GENERATION, "numCaptions", "prompt", "textColumn", "threshold"],
  filter: [...TEXTS, "threshold"],
};
const ALL = new Set(Object.values(OPTIONS).flat());

const TEMPLATE_HELP =
  `what the model reads, with ${QUESTION_SLOT} where the question goes (default: the model's own: ` +
  `of BLIP, the question as it is; of BLIP-2, "Question: ${QUESTION_SLOT} Answer:")`;

const text = someText(MAX_TEXT_CHARACTERS);
const column = someText(1_000);

/** Adds the options of all tasks, in groups. Other options have to be added before. */
export function addTaskOptions(command: Command): Command {
  return command
    .optionsGroup("caption, vqa, capfilt: how the text is made (as in transformers' generate):")
    .option("--max-new-tokens <n>", "longest text, in tokens (default: 20)", wholeNumber(MAX_NEW_TOKENS))
    .option("--min-new-tokens <n>", "shortest text, in tokens (default: 0)", wholeNumber(MAX_NEW_TOKENS, 0))
    .option("--num-beams <n>", "beam search; 1 is greedy (default: 1)", wholeNumber(MAX_BEAMS))
    .option("--length-penalty <x>", "beams: above 0 favours long texts (default: 1)", numberFrom(-10, 10))
    .option("--repetition-penalty <x>", "above 1: fewer repeated tokens (default: 1)", numberAbove0(100))
    .option("--sample", "draw tokens at random; implied by the next four")
    .option("--temperature <x>", "below 1: nearer to the likeliest (default: 1)", numberAbove0(100))
    .option("--top-k <n>", "draw from the n likeliest tokens; 0: from all (default: 0)", wholeNumber(1e9, 0))
    .option("--top-p <x>", "draw from the likeliest that add up to x (default: 1)", numberAbove0(1))
    .option("--seed <n>", "the same seed draws the same texts (default: 0)", wholeNumber(0xffffffff, 0))
    .optionsGroup("caption, capfilt:")
    .option("--num-captions <n>", "captions per image, of beams or samples (default: 1)", wholeNumber(MAX_CAPTIONS))
    .option("--prompt <text>", 'what every caption begins with, such as "a picture of"', text)
    .optionsGroup("vqa (one of the first two is needed):")
    .option("--question <text>", "asked of every image; may be repeated", many(text, MAX_TEXTS))
    .option("--question-column <name>", "the manifest's field with a question, or a list of them", column)
    .option("--template <text>", TEMPLATE_HELP, text)
    .option("--answers <file|list>", "the only answers: a file with one a line, or a,b,c")
    .option("--answer <text>", "one of the only answers; may be repeated", many(text, MAX_ANSWERS))
    .optionsGroup("itm, itc, filter (one of them is needed), embed (without: the images), capfilt (a column, or none):")
    .option("--text <text>", "compared with every image; may be repeated", many(text, MAX_TEXTS))
    .option("--text-column <name>", "the manifest's field with a text, or a list of them", column)
    .optionsGroup("capfilt, filter:")
    .option(
      "--threshold <p>",
      "the least probability to match of a text that is kept (default: 0.5)",
      numberFrom(0, 1),
    );
}

/** Throws UNKNOWN_TASK. */
export function parseTask(given: string): JobTask {
  const task = JOB_TASKS.find((name) => name === given);
  if (task) return task;
  throw new CapfleetError("UNKNOWN_TASK", `unknown task "${given}" (tasks: ${JOB_TASKS.join(", ")})`);
}

/** Throws INVALID_OPTION: an option of another task, one that is missing, or two that contradict each other. */
export function taskSpecOf(task: JobTask, options: TaskOptions): JobTaskSpec {
  const strange = given(options, [...ALL]).find((name) => !OPTIONS[task].includes(name));
  if (strange) {
    const known = OPTIONS[task].map(flag).join(", ");
    throw invalid(`${flag(strange)}: the task "${task}" has no such option (it has: ${known})`);
  }
  const spec = build(task, options);
  const characters = spec.name === "caption" ? 0 : givenCharacters(spec);
  if (characters <= MAX_GIVEN_CHARACTERS) return spec;
  throw invalid(`the texts have ${characters} characters together; a job can give ${MAX_GIVEN_CHARACTERS}`);
}

function build(task: JobTask, options: TaskOptions): JobTaskSpec {
  switch (task) {
    case "caption":
      return { name: task, ...captionsOf(options) };
    case "vqa":
      return {
        name: task,
        decoding: decodingOf(options),
        questions: needed(sourceOf(options, "question", "questionColumn"), task, "question", "questionColumn"),
        template: templateOf(options),
        answers: answersOf(options),
      };
    case "itm":
    case "itc":
      return { name: task, texts: needed(sourceOf(options, ...TEXTS), task, ...TEXTS) };
    case "embed":
      return { name: task, texts: sourceOf(options, ...TEXTS) };
    case "capfilt": {
      // The paper's captioner draws from the nucleus of 0.9.
      const asIt = options.numBeams === undefined && given(options, SAMPLING).length === 0;
      const captions = captionsOf(asIt ? { ...options, topP: 0.9 } : options);
      return { name: task, texts: sourceOf(options, ...TEXTS), ...captions, threshold: thresholdOf(options) };
    }
    case "filter": {
      const texts = needed(sourceOf(options, ...TEXTS), task, ...TEXTS);
      return { name: task, texts, threshold: thresholdOf(options) };
    }
  }
}

const thresholdOf = ({ threshold = 0.5 }: TaskOptions) => threshold;

function captionsOf(options: TaskOptions): { decoding: Decoding; captions: number; prompt: string | null } {
  const { numCaptions: captions = 1, prompt = null } = options;
  const decoding = decodingOf(options);
  if (captions > decoding.beams && !decoding.sampling) {
    throw invalid(`--num-captions ${captions} needs --num-beams ${captions} or more, or --sample`);
  }
  return { decoding, captions, prompt };
}

function decodingOf(options: TaskOptions): Decoding {
  const { maxNewTokens, minNewTokens, numBeams: beams, lengthPenalty, repetitionPenalty } = options;
  const { temperature, topK, topP, seed } = options;
  const sampling = given(options, SAMPLING)[0];
  const asked = { maxNewTokens, minNewTokens, beams, lengthPenalty, repetitionPenalty };
  const decoding = decodingSchema.parse({ ...asked, sampling: sampling ? { temperature, topK, topP, seed } : null });
  if (decoding.minNewTokens > decoding.maxNewTokens) {
    throw invalid(`--min-new-tokens ${minNewTokens} is more than --max-new-tokens ${decoding.maxNewTokens}`);
  }
  if (decoding.beams > 1 && sampling) {
    throw invalid(`--num-beams ${beams} and ${flag(sampling)}: beams and sampling exclude each other`);
  }
  if (lengthPenalty !== undefined && decoding.beams === 1) {
    throw invalid("--length-penalty ranks beams: it needs --num-beams 2 or more");
  }
  return decoding;
}

function sourceOf(options: TaskOptions, texts: "question" | "text", column: "questionColumn" | "textColumn") {
  const [list, name] = [options[texts], options[column]];
  if (list && name !== undefined) throw invalid(`${flag(texts)} and ${flag(column)}: give one of them`);
  if (list) return { given: list };
  return name === undefined ? null : { column: name };
}

function needed(source: TextSource | null, task: JobTask, ...names: (keyof TaskOptions)[]): TextSource {
  if (source) return source;
  throw invalid(`the task "${task}" needs ${names.map(flag).join(" or ")}`);
}

/** Null: the model's own. */
function templateOf({ template }: TaskOptions): string | null {
  if (template === undefined) return null;
  if (template.includes(QUESTION_SLOT)) return template;
  throw invalid(`--template ${JSON.stringify(template)}: it lacks ${QUESTION_SLOT}, the place of the question`);
}

/** The closed list of answers; null where there is none. */
function answersOf(options: TaskOptions): string[] | null {
  const { answer, answers } = options;
  if (answer && answers !== undefined) throw invalid("--answer and --answers: give one of them");
  const list = answers === undefined ? answer : readAnswers(answers);
  if (!list) return null;
  const [useless] = given(options, GENERATION);
  if (!useless) return [...new Set(list)];
  const name = answers === undefined ? "--answer" : "--answers";
  throw invalid(`${flag(useless)} and ${name}: given answers are ranked, no text is made`);
}

function readAnswers(source: string): string[] {
  const isFile = existsSync(source) && statSync(source).isFile();
  if (!isFile && !source.includes(",")) {
    throw invalid(`--answers ${source}: no such file, and no list of answers with commas`);
  }
  const parts = isFile
    ? readFileSync(source, "utf8")
        .replace(/^\uFEFF/, "")
        .split("\n")
    : source.split(",");
  const list = parts.map((part) => part.trim()).filter((part) => part !== "");
  if (list.length === 0) throw invalid(`--answers ${source} holds no answer`);
  if (list.length > MAX_ANSWERS)
    throw invalid(`--answers ${source} holds ${list.length} answers; ${MAX_ANSWERS} at most`);
  const long = list.findIndex((part) => part.length > MAX_TEXT_CHARACTERS);
  if (long < 0) return list;
  throw invalid(`--answers ${source}: answer ${long + 1} has more than ${MAX_TEXT_CHARACTERS} characters`);
}

function givenCharacters(spec: Exclude<JobTaskSpec, { name: "caption" }>): number {
  const source = spec.name === "vqa" ? spec.questions : spec.texts;
  const texts = source && "given" in source ? source.given : [];
  const answers = (spec.name === "vqa" && spec.answers) || [];
  return [...texts, ...answers].reduce((sum, { length }) => sum + length, 0);
}

const given = (options: TaskOptions, names: readonly (keyof TaskOptions)[]) =>
  names.filter((name) => options[name] !== undefined);
const flag = (name: keyof TaskOptions) => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
const invalid = (message: string) => new CapfleetError("INVALID_OPTION", message);

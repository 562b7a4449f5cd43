/** What is asked of a model: the options of each task, however they were given, and the TaskSpec that they make. */
import { existsSync, readFileSync, statSync } from "node:fs";
import {
  CapfleetError,
  type Decoding,
  decodingSchema,
  JOB_TASKS,
  type JobTask,
  type JobTaskSpec,
  MAX_ANSWERS,
  MAX_GIVEN_CHARACTERS,
  MAX_TEXT_CHARACTERS,
  QUESTION_SLOT,
  type TextSource,
} from "@capfleet/shared/contract";

/** As commander hands them over, and the API; what was not given is not there. */
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

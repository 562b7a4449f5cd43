/** From a form's values to a request, and from the server's word about it back to a field. */
import type { ApiError } from "../api.ts";
import type { Wrong } from "../parts/fields.tsx";
import type { JobTask } from "../types.ts";

const TEXTS = ["input", "output", "model", "captioner", "filter", "precision", "format", "lane"] as const;
const COLUMNS = ["image_column", "id_column", "question_column", "text_column"] as const;
const LISTS = ["question", "answer", "text"] as const;
const NUMBERS = [
  ...(["limit", "shard_size", "max_error_rate", "num_captions", "threshold", "num_beams", "max_new_tokens"] as const),
  ...(["min_new_tokens", "length_penalty", "repetition_penalty", "temperature", "top_k", "top_p", "seed"] as const),
] as const;
const OTHERS = ["prompt", "keep", "name", "cron", "time_zone"] as const;

type TextName = (typeof TEXTS | typeof COLUMNS | typeof LISTS | typeof NUMBERS | typeof OTHERS)[number];
/** As they are typed; empty is what was left out. */
export type Values = Record<TextName, string> & { task: JobTask; incremental: boolean };

const NAMES: readonly TextName[] = [...TEXTS, ...COLUMNS, ...LISTS, ...NUMBERS, ...OTHERS];
export const EMPTY: Values = {
  ...(Object.fromEntries(NAMES.map((name) => [name, ""])) as Record<TextName, string>),
  task: "caption",
  incremental: false,
};

const MAKES = [
  ...(["num_beams", "max_new_tokens", "min_new_tokens", "length_penalty", "repetition_penalty"] as const),
  ...(["temperature", "top_k", "top_p", "seed"] as const),
] as const;
/** Fields that other tasks have; what is typed there stays, and is not sent. */
const OF_TASK: Record<JobTask, readonly TextName[]> = {
  caption: ["model", "num_captions", "prompt", ...MAKES],
  vqa: ["model", "question", "question_column", "answer", ...MAKES],
  itm: ["model", "text", "text_column"],
  itc: ["model", "text", "text_column"],
  embed: ["model", "text", "text_column"],
  capfilt: ["captioner", "filter", "text_column", "num_captions", "prompt", "threshold", ...MAKES],
  filter: ["filter", "text_column", "threshold"],
};
const SOME_TASKS = new Set(Object.values(OF_TASK).flat());
const SCHEDULE = ["name", "cron", "time_zone"];

/** Of POST /v1/jobs. */
export function bodyOf(values: Values): Record<string, unknown> {
  const body: Record<string, unknown> = { task: values.task };
  for (const name of NAMES) {
    const typed = values[name].trim();
    if (typed === "" || SCHEDULE.includes(name)) continue;
    if (SOME_TASKS.has(name) && !OF_TASK[values.task].includes(name)) continue;
    if (isIn(NUMBERS, name)) body[name] = Number.isNaN(Number(typed)) ? typed : Number(typed);
    else if (isIn(LISTS, name)) body[name] = typed.split("\n").flatMap((line) => line.trim() || []);
    else if (name === "keep") body[name] = typed.split(",").flatMap((column) => column.trim() || []);
    else body[name] = typed;
  }
  return values.incremental ? { ...body, incremental: true } : body;
}

/** What every job has to have; the rest is the server's to judge. */
export function missingIn(values: Values, isScheduled: boolean): Wrong | null {
  const { task, input, output, question, question_column, text, text_column, name, cron } = values;
  const missing = (field: TextName, message: string) => ({ field, message, fix: "" });
  if (input.trim() === "") return missing("input", "Say where the images are.");
  if (output.trim() === "") return missing("output", "Say where the rows go.");
  if (task === "vqa" && !question.trim() && !question_column.trim())
    return missing("question", "Say what to ask, or which column has it.");
  if ((task === "itm" || task === "itc") && !text.trim() && !text_column.trim())
    return missing("text", "Say which texts, or which column has them.");
  if (task === "filter" && !text_column.trim()) return missing("text_column", "Say which column has the texts.");
  if (isScheduled && name.trim() === "") return missing("name", "Give it a name.");
  if (isScheduled && cron.trim() === "") return missing("cron", "Say when it runs.");
  return null;
}

const BY_CODE: Record<string, TextName> = {
  INPUT_NOT_FOUND: "input",
  INPUT_EMPTY: "input",
  MANIFEST_INVALID: "input",
  TAR_INVALID: "input",
  SOURCE_CHANGED: "input",
  STORE_UNSORTED: "input",
  OUTPUT_IN_USE: "output",
  OUTPUT_INSIDE_INPUT: "output",
  DATASET_BUSY: "output",
  SCHEDULE_EXISTS: "name",
};
const LOCATED = ["INVALID_URI", "LOCATION_FORBIDDEN", "STORE_BUCKET_NOT_FOUND", "STORE_ACCESS_DENIED"];

/** Which field the server means; null where it is none of them. */
export function wrongField({ code, message, fix }: ApiError, values: Values): Wrong | null {
  const field = BY_CODE[code] ?? (LOCATED.includes(code) ? locationIn(message, values) : nameIn(message));
  if (field) return { field, message: message.replace(/^body\.(job\.)?\w+(\.\d+)?: /, ""), fix };
  if (code === "MODEL_NOT_FOUND" || code === "TASK_UNSUPPORTED") {
    const role = (["model", "captioner", "filter"] as const).find(
      (name) => values[name] && message.includes(values[name]),
    );
    return { field: role ?? (values.task === "capfilt" ? "captioner" : "model"), message, fix };
  }
  return null;
}

function locationIn(message: string, { input, output }: Values): TextName {
  const isOutput = message.includes("write") || (message.includes(output.trim()) && !message.includes(input.trim()));
  const bucket = /^s3:\/\/[^/]*/.exec(output.trim())?.[0].slice(5);
  const inBucket = bucket !== undefined && message.includes(bucket) && !input.includes(bucket);
  return isOutput || inBucket ? "output" : "input";
}

/** The first field that a message names; the longest, where one name holds another. */
function nameIn(message: string): TextName | null {
  const [, named] = /^body\.(?:job\.)?(\w+)/.exec(message) ?? [];
  if (named && isIn(NAMES, named)) return named;
  const found = /\b[a-z]+(?:_[a-z]+)+\b/.exec(message)?.[0] ?? /^(\w+)\b/.exec(message)?.[1];
  return found && isIn(NAMES, found) ? found : null;
}

const isIn = <T extends string>(names: readonly T[], name: string): name is T =>
  (names as readonly string[]).includes(name);

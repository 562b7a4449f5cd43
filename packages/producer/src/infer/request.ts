/** The request for one record that a task's options make. */
import { CapfleetError, type JobTaskSpec, needsImage, needsText, rolesOf, textsOf } from "@capfleet/shared/contract";
import type { Model } from "@capfleet/shared/models";
import type { InferRequest } from "@capfleet/shared/queues";
import { checkModel } from "../jobs/create.ts";
import { parseTask, type TaskOptions, taskSpecOf } from "../jobs/task-spec.ts";

/**
 * `models`: one per role of the task. The record's texts are its own or those that the task gives; they go with the record
 * in either case, so that requests with other questions share a batch.
 *
 * Throws TASK_UNSUPPORTED, and INVALID_OPTION where a text or an image is missing or the model can't do what is asked.
 */
export function inferRequestOf(
  asked: JobTaskSpec,
  models: readonly Model[],
  record: InferRequest["record"],
  hasUpload: boolean,
): InferRequest {
  for (const [i, role] of rolesOf(asked).entries()) checkModel(role, models[i]!);
  const source = textsOf(asked);
  const texts = record.texts ?? (source && "given" in source ? source.given : []);
  if (source && texts.length === 0 && needsText(asked)) {
    throw new CapfleetError("INVALID_OPTION", `the task "${asked.name}" needs a text`);
  }
  if (needsImage(asked) && record.image === null && !hasUpload) {
    throw new CapfleetError("INVALID_OPTION", `the task "${asked.name}" needs an image`);
  }
  return {
    task: withTextsOfRecord(asked),
    engines: models.map(({ ref }) => ref),
    record: { ...record, ...(texts.length > 0 && { texts }) },
  };
}

function withTextsOfRecord(task: JobTaskSpec): JobTaskSpec {
  if (textsOf(task) === null) return task;
  const source = { column: "texts" };
  return task.name === "vqa" ? { ...task, questions: source } : ({ ...task, texts: source } as JobTaskSpec);
}

/** A job takes them from columns; one image has none. */
export const COLUMN_FLAGS = { questionColumn: "--question-column", textColumn: "--text-column" } as const;

/**
 * The task that options ask for, and capfilt's texts: a job takes them from a column alone, since each image has its own.
 * Throws UNKNOWN_TASK, INVALID_OPTION.
 */
export function inferTaskOf(name: string, options: TaskOptions): { spec: JobTaskSpec; texts: string[] | null } {
  const task = parseTask(name);
  for (const [column, flag] of Object.entries(COLUMN_FLAGS)) {
    if (options[column as keyof typeof COLUMN_FLAGS] === undefined) continue;
    throw new CapfleetError("INVALID_OPTION", `${flag}: one image has no columns; give --question or --text`);
  }
  const { text, ...others } = options;
  if (task !== "capfilt" || !text) return { spec: taskSpecOf(task, options), texts: null };
  return { spec: taskSpecOf(task, { ...others, textColumn: "text" }), texts: text };
}

/** The request for a job that options make, wherever they were given: on a command line, or over HTTP. */
import {
  CapfleetError,
  DEFAULT_MAX_ERROR_RATE,
  type Format,
  type JobTask,
  type Lane,
  type Precision,
  type Task,
} from "@capfleet/shared/contract";
import type { JobRequest } from "./create.ts";
import { parseTask, type TaskOptions, taskSpecOf } from "./task-spec.ts";

/** The bundled model for each task. */
export const DEFAULT_MODELS: Record<Task, string> = {
  caption: "demo-caption",
  vqa: "demo-vqa",
  itm: "demo-itm",
  itc: "demo-itm",
  embed: "demo-itm",
};

export interface JobOptions extends TaskOptions {
  out: string;
  model?: string;
  captioner?: string;
  filter?: string;
  precision?: Precision;
  imageColumn?: string;
  idColumn?: string;
  keep?: string[];
  limit?: number;
  shardSize?: number;
  format?: Format;
  lane?: Lane;
  maxErrorRate?: number;
  incremental?: boolean;
}

/** The models of a task's roles. */
export type ModelOptions = Pick<JobOptions, "model" | "captioner" | "filter">;

export interface AskedJob {
  request: JobRequest;
  /** One per role of the task. */
  models: string[];
  /** Null: whatever suits the device, or is registered under the model's name. */
  precision: Precision | null;
}

/** Throws UNKNOWN_TASK or INVALID_OPTION. */
export function askedJob(task: string, input: string, options: JobOptions, runner: "local" | "fleet"): AskedJob {
  const name = parseTask(task);
  const request: JobRequest = {
    task: taskSpecOf(name, options),
    input,
    columns: columnsOf(options),
    output: options.out,
    limit: options.limit ?? null,
    shardSize: options.shardSize ?? null,
    format: options.format ?? "jsonl",
    lane: options.lane ?? "normal",
    maxErrorRate: options.maxErrorRate ?? DEFAULT_MAX_ERROR_RATE,
    readable: null,
    runner,
    incremental: options.incremental ?? false,
  };
  return { request, models: modelsOf(name, options), precision: options.precision ?? null };
}

const columnsOf = ({ imageColumn: image, idColumn: id, keep }: JobOptions) => ({
  ...(image !== undefined && { image }),
  ...(id !== undefined && { id }),
  ...(keep && { keep }),
});

/** Throws INVALID_OPTION: a model for a role that the task does not have. */
export function modelsOf(task: JobTask, { model, captioner, filter }: ModelOptions): string[] {
  const cleans = task === "capfilt" || task === "filter";
  const strange = [
    cleans && model !== undefined && "--model",
    task !== "capfilt" && captioner !== undefined && "--captioner",
    !cleans && filter !== undefined && "--filter",
  ].find((flag) => flag !== false);
  if (strange) {
    const has = { capfilt: "--captioner and --filter", filter: "--filter" }[task as string] ?? "--model";
    throw new CapfleetError("INVALID_OPTION", `${strange}: the task "${task}" has no such model; it has ${has}`);
  }
  if (!cleans) return [model ?? DEFAULT_MODELS[task]];
  const matching = filter ?? DEFAULT_MODELS.itm;
  return task === "filter" ? [matching] : [captioner ?? DEFAULT_MODELS.caption, matching];
}

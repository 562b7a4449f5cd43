/** `capfleet plan`: how long a job would take, and what it would cost, before anything is run. */

import { numberAbove0, numberFrom, wholeNumber } from "@capfleet/shared/command-line";
import { CapfleetError, type EngineRef, type JobTask, PRECISIONS, type Precision } from "@capfleet/shared/contract";
import { findModel, findServedModel, type Model, sourceOf } from "@capfleet/shared/models";
import { type Command, Option } from "commander";
import type { Estimate } from "../estimate/estimate.ts";
import { answerPlan } from "../estimate/plan.ts";
import { type ModelOptions, modelsOf } from "../jobs/asked-job.ts";
import { parseTask } from "../jobs/task-spec.ts";
import type { Context } from "./context.ts";
import { amount, count, duration, plural } from "./format.ts";
import { MODEL_FORMS } from "./job-options.ts";
import { ProgressDisplay } from "./progress.ts";

/** What is counted sooner needs no progress. */
const QUIET_MS = 2_000;

export interface PlanOptions extends ModelOptions {
  images?: number;
  task: string;
  precision?: Precision;
  workers: number;
  price?: number;
  rate?: number;
  json: boolean;
}

export function addPlanOptions(command: Command): Command {
  return command
    .argument("[input]", "what would be labelled, as `capfleet run` takes it; its records are counted")
    .option("--images <n>", "their number, in the place of the input", wholeNumber(1e12))
    .option("--task <task>", "what would be done", "caption")
    .option("--model <model>", `${MODEL_FORMS} (default: the task's demo)`)
    .option("--captioner <model>", "capfilt: the model that makes captions")
    .option("--filter <model>", "capfilt, filter: the model that says which texts match")
    .addOption(new Option("--precision <precision>", "default: what workers run it as").choices(PRECISIONS))
    .option("--workers <n>", "workers at work at once", wholeNumber(1e6), 1)
    .option(
      "--price <x>",
      "what an hour of a worker costs (default: what it did when it was measured)",
      numberFrom(0, 1e6),
    )
    .option("--rate <x>", "images a second of one worker (default: as jobs have measured it)", numberAbove0(1e6))
    .option("--json", "print one JSON object", false)
    .addHelpText(
      "after",
      `
Every job measures its workers' rate as it runs. Before the first one, run a sample: \`capfleet run … --limit 200\`.

Examples:
  capfleet plan s3://photos/ --model Salesforce/blip-image-captioning-base --workers 4
  capfleet plan --images 5000000 --task vqa --model blip-vqa --workers 20 --price 0.75`,
    );
}

/** Throws INVALID_OPTION, UNKNOWN_TASK, RATE_UNKNOWN, and what finding the models and counting the input throw. */
export async function plan(input: string | undefined, options: PlanOptions, context: Context): Promise<void> {
  const { images, workers, price, rate, json } = options;
  const task = parseTask(options.task);
  const names = modelsOf(task, options);
  if ((input === undefined) === (images === undefined))
    throw new CapfleetError("INVALID_OPTION", "give either an input, to be counted, or --images");
  const display = new ProgressDisplay();
  const started = performance.now();
  const onCount = (records: number) => {
    if (performance.now() - started > QUIET_MS) display.line(`counting: ${plural(records, "record")} so far`);
  };
  try {
    const found = await answerPlan(
      {
        task,
        engines: () => Promise.all(names.map((name) => engineOf(name, task, options.precision ?? null, context))),
        images: images ?? { input: input!, counting: { withinMs: null, onCount } },
        workers,
        pricePerHour: price ?? null,
        rate: rate ?? null,
        seesJobs: true,
      },
      context.stores,
      context.state,
    );
    display.clear();
    process.stdout.write(`${json ? JSON.stringify(found) : planText(found)}\n`);
  } finally {
    display.clear();
  }
}

/** What jobs ran has been registered: nothing is downloaded to learn that nothing was measured. */
async function engineOf(
  given: string,
  task: JobTask,
  precision: Precision | null,
  { state, config }: Context,
): Promise<EngineRef> {
  const source = sourceOf(given);
  let model: Model;
  try {
    model =
      source.kind === "folder"
        ? await findModel(given, precision, state, config)
        : await findServedModel(source.name, precision, state, config);
  } catch (thrown) {
    const isRemote = source.kind === "hub" || source.kind === "bucket";
    if (!isRemote || !(thrown instanceof CapfleetError) || thrown.code !== "MODEL_NOT_FOUND") throw thrown;
    throw new CapfleetError("RATE_UNKNOWN", `no job has measured how fast a worker does "${task}" with ${given}`);
  }
  return model.ref;
}

function planText({ images, workers, ratePerWorker, seconds, workerHours, cost, per1000, assumed }: Estimate): string {
  const hours = workers > 1 ? ` (${duration(workerHours * 3_600)} of work)` : "";
  return [
    `${plural(images, "image")}: about ${duration(seconds)} on ${plural(workers, "worker")}${hours}`,
    `  rate       ${count(Number(ratePerWorker.toPrecision(3)))} images/s of one worker`,
    ...(cost === null ? [] : [`  cost       about ${amount(cost)}, ${amount(per1000!)} per 1,000`]),
    ...assumed.map((sentence, i) => `  ${i === 0 ? "assumed  " : "         "}  ${sentence}`),
  ].join("\n");
}

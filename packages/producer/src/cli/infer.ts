/** `capfleet infer`: one picture, answered by the fleet's workers while you wait. Nothing of it is kept. */
import { readFile, stat } from "node:fs/promises";
import { basename } from "node:path";
import { numberFrom } from "@capfleet/shared/command-line";
import { CapfleetError, JOB_TASKS, type JobTaskSpec, PRECISIONS, type Precision } from "@capfleet/shared/contract";
import { findModel, type Model } from "@capfleet/shared/models";
import { checkRedis, connectRedis, MAX_INFER_TIMEOUT_MS, MAX_UPLOAD_BYTES } from "@capfleet/shared/queues";
import { parseUri } from "@capfleet/shared/storage";
import { type Command, Option } from "commander";
import { InferClient } from "../infer/client.ts";
import { COLUMN_FLAGS, inferRequestOf, inferTaskOf } from "../infer/request.ts";
import { type ModelOptions, modelsOf } from "../jobs/asked-job.ts";
import type { TaskOptions } from "../jobs/task-spec.ts";
import { answerText } from "./answer.ts";
import type { Context } from "./context.ts";
import { MODEL_FORMS } from "./job-options.ts";
import { showingDownload } from "./progress.ts";
import { addTaskOptions } from "./task-options.ts";

export interface InferCommandOptions extends TaskOptions, ModelOptions {
  precision?: Precision;
  timeout: number;
  json: boolean;
}

export function addInferOptions(command: Command): Command {
  command
    .argument("<task>", `what to do: ${JOB_TASKS.join(", ")}`)
    .argument("[image]", "a file, which is sent along, or an s3:// or https:// location, which workers read")
    .option("--model <model>", `${MODEL_FORMS} (default: the task's demo)`)
    .option("--captioner <model>", "capfilt: the model that makes captions (default: the demo)")
    .option("--filter <model>", "capfilt, filter: the model that says which texts match (default: the demo)")
    .addOption(new Option("--precision <precision>", "what workers run the model as").choices(PRECISIONS))
    .option("--timeout <seconds>", "how long to wait", numberFrom(0.1, MAX_INFER_TIMEOUT_MS / 1_000), 30)
    .option("--json", "print one JSON object: the fields of a row", false);
  addTaskOptions(command);
  for (const option of command.options) {
    if (Object.values<string | undefined>(COLUMN_FLAGS).includes(option.long)) option.hideHelp();
  }
  return command.addHelpText(
    "after",
    `
Needs CAPFLEET_REDIS_URL and a live worker that runs the model. capfilt takes --text as well: the image's own texts.

Examples:
  capfleet infer caption photo.jpg --model Salesforce/blip-image-captioning-base --num-beams 3 --num-captions 3
  capfleet infer vqa s3://photos/1.jpg --question "is there a dog?" --json
  capfleet infer itm photo.jpg --text "a dog" --text "a cat"
  capfleet infer embed --text "a dog on a lawn" --json`,
  );
}

/** Throws what is wrong with the options, the model or the image, and what `InferClient.infer` throws. */
export async function infer(
  task: string,
  image: string | undefined,
  options: InferCommandOptions,
  context: Context,
): Promise<void> {
  const { config, state, stores } = context;
  const { spec, texts } = inferTaskOf(task, options);
  const names = modelsOf(spec.name, options);
  const { uri, upload } = await imageOf(spec, image);
  if (!config.redisUrl)
    throw new CapfleetError("REDIS_MISSING", "CAPFLEET_REDIS_URL is not set: which fleet is asked?");
  await checkRedis(config.redisUrl);
  const models: Model[] = [];
  for (const name of names) {
    const { precision = null } = options;
    models.push(await showingDownload(stores, (fetching) => findModel(name, precision, state, config, fetching)));
  }
  // As a folder's images are called in a job: with the same seed the same text is drawn.
  const record = { id: image === undefined ? "" : basename(image), image: uri, ...(texts && { texts }) };
  const request = inferRequestOf(spec, models, record, upload !== null);
  const redis = connectRedis(config.redisUrl, "hasty");
  const client = new InferClient(redis);
  try {
    const row = await client.infer(request, upload, { timeoutMs: options.timeout * 1_000 });
    for (const warning of row.warnings ?? []) process.stderr.write(`${warning}\n`);
    const shown = { task: spec.name, image: image ?? null, ...row, engines: request.engines };
    process.stdout.write(`${options.json ? JSON.stringify(shown) : answerText(row, request.record.texts ?? [])}\n`);
  } finally {
    await client.close();
    redis.disconnect();
  }
}

/** Throws USAGE, INPUT_NOT_FOUND, INVALID_URI, IMAGE_TOO_LARGE. */
async function imageOf(spec: JobTaskSpec, image: string | undefined) {
  const none = { uri: null, upload: null };
  const isText = spec.name === "embed" && spec.texts !== null;
  if (image === undefined) {
    if (isText) return none;
    throw new CapfleetError("USAGE", `which image? capfleet infer ${spec.name} <image>`);
  }
  if (isText) throw new CapfleetError("USAGE", "embed --text is about the texts alone: leave the image out");
  if (/^(s3|https):\/\//i.test(image)) return { ...none, uri: image };
  const location = parseUri(image);
  if (location.scheme !== "file") return { ...none, uri: image };
  const found = await stat(location.path).catch(() => null);
  if (!found) throw new CapfleetError("INPUT_NOT_FOUND", `${image} does not exist`);
  if (!found.isFile()) throw new CapfleetError("INPUT_NOT_FOUND", `${image} is no file; capfleet run labels folders`);
  if (found.size > MAX_UPLOAD_BYTES) {
    const most = `${MAX_UPLOAD_BYTES} can be sent along: put it where workers can read it, and give its location`;
    throw new CapfleetError("IMAGE_TOO_LARGE", `${image} has ${found.size} bytes; ${most}`);
  }
  return { ...none, upload: await readFile(location.path) };
}

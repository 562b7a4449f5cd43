/** Commands that change or show jobs: submit, status, watch, pause, cancel, resume, results. */
import { once } from "node:events";
import { CapfleetError, datasetLayout, type JobFile, layout, type ResultRow } from "@capfleet/shared/contract";
import { findLocalModel, findModel, type Model, parseDevice } from "@capfleet/shared/models";
import { create } from "../incremental/start.ts";
import { viewRows } from "../incremental/view.ts";
import { readJobFile } from "../jobs/create.ts";
import { type JobStatus, readStatus } from "../jobs/status.ts";
import { type Context, type FoundJob, findJob, optionalRedis, wakeReconciler } from "./context.ts";
import { datasetStatus, describeDataset, type FoundDataset, findDataset, nothingNewText } from "./dataset.ts";
import { count, progressLine } from "./format.ts";
import type { AskedJob } from "./job-options.ts";
import { ProgressDisplay, showingDownload } from "./progress.ts";
import { report, runHere } from "./run.ts";

const WATCH_MS = 1_000;

export async function submit(
  { request, models, precision }: AskedJob,
  wait: boolean,
  json: boolean,
  context: Context,
): Promise<void> {
  const found: Model[] = [];
  for (const model of models) {
    found.push(
      await showingDownload(context.stores, (fetching) =>
        findModel(model, precision, context.state, context.config, fetching),
      ),
    );
  }
  const created = await create(request, found, context.stores, context.states);
  if ("nothingNew" in created) {
    const { root, nothingNew } = created;
    print(json ? JSON.stringify({ id: null, out: root, nothingNew }) : nothingNewText(created));
    return;
  }
  await wakeReconciler(context, created.file.id);
  const { file, state, out } = created;
  if (json) print(JSON.stringify({ id: file.id, out, existed: created.existed }));
  else print(file.id);
  if (wait) await watchJob({ file, state }, context);
}

export async function status(job: string | undefined, json: boolean, context: Context): Promise<void> {
  const redis = optionalRedis(context);
  try {
    const dataset = job === undefined ? null : await findDataset(job, context);
    if (dataset) {
      const found = await datasetStatus(dataset, redis, context);
      print(json ? JSON.stringify(found) : describeDataset(found));
      return;
    }
    if (job !== undefined) {
      const { state } = await findJob(job, context);
      const found = await readStatus(state, context.stores, redis);
      print(json ? JSON.stringify(found) : describe(found!));
      return;
    }
    let jobs = 0;
    for await (const { id } of context.states.all()) {
      const state = await context.states.find(id);
      const found = state && (await readStatus(state, context.stores, redis).catch(() => null));
      if (!state) continue;
      jobs += 1;
      if (json) print(JSON.stringify(found ?? { id, out: state.out, unreadable: true }));
      else
        print(found ? `${id}  ${found.task}  ${progressLine(found)}  ${found.out}` : `${id}  unreadable: ${state.out}`);
    }
    if (jobs === 0 && !json) process.stderr.write(`no jobs in ${context.config.state}\n`);
  } finally {
    redis?.disconnect();
  }
}

export async function watch(job: string, context: Context): Promise<void> {
  await watchJob(await findJob(job, context), context);
}

export async function change(job: string, intent: "paused" | "cancelled", context: Context): Promise<void> {
  const { file } = await findJob(job, context);
  await context.states.want(file.id, intent);
  await wakeReconciler(context, file.id);
  print(
    intent === "paused"
      ? `paused ${file.id}; what is in work commits`
      : `cancelled ${file.id}; what is committed stays`,
  );
}

/** A fleet's job goes on in the fleet; a local one here, until it ends. */
export async function resume(job: string, context: Context, options: { device?: string }): Promise<void> {
  const { file, state } = await findJob(job, context);
  if (state.ended) throw new CapfleetError("JOB_STATE", `${file.id} has already ended: it is ${state.ended}`);
  if (state.runner === "fleet") {
    await context.states.want(file.id, "run");
    await wakeReconciler(context, file.id);
    print(`resumed ${file.id}`);
    return;
  }
  const device = options.device ?? "cpu";
  parseDevice(device);
  const folders: string[] = [];
  for (const [i, engine] of file.spec.engines.entries()) {
    const source = state.checkpoints?.[i] ?? engine.model;
    const model = await showingDownload(context.stores, (fetching) =>
      findLocalModel(source, engine.precision, context.config, fetching),
    );
    if (model.ref.digest !== engine.digest) {
      const found = `${model.folder} is engine ${model.ref.digest}; ${file.id} was started with ${engine.digest}`;
      throw new CapfleetError("MODEL_NOT_FOUND", found);
    }
    folders.push(model.folder!);
  }
  await runHere({ file, state, out: state.out, existed: true }, folders, device, context);
}

export interface ResultsOptions {
  /** Only rows that failed. */
  errors: boolean;
  /** The texts that a job that cleans has kept: a line each. */
  kept: boolean;
}

/** Rows in input order, as JSONL on stdout; of a dataset, the rows of all its images. Throws INVALID_OPTION. */
export async function results(job: string, { errors, kept }: ResultsOptions, context: Context): Promise<void> {
  const dataset = await findDataset(job, context);
  if (dataset && !dataset.dataset.current) {
    process.stderr.write(`no run of ${dataset.root.uri} has finished yet\n`);
    return;
  }
  const { file, parts } = dataset ? await datasetRows(dataset, context) : await jobRows(job, context);
  const cleans = file.spec.task.name === "capfilt" || file.spec.task.name === "filter";
  if (kept && !cleans)
    throw new CapfleetError("INVALID_OPTION", `--kept: ${file.id} is ${file.spec.task.name}, which keeps all`);
  if (kept && errors) throw new CapfleetError("INVALID_OPTION", "--kept and --errors: give one of them");
  for await (const all of parts) {
    const some = kept ? all.flatMap(keptLines) : errors ? all.filter(isErrorRow) : all;
    const text = some.map((line) => `${line}\n`).join("");
    if (!process.stdout.write(text)) await once(process.stdout, "drain");
  }
}

interface Rows {
  file: JobFile;
  /** Rows as JSON, some at a time. */
  parts: AsyncIterable<string[]>;
}

async function jobRows(job: string, context: Context): Promise<Rows> {
  const { store, file } = await findJob(job, context);
  const read = async function* () {
    for await (const { key } of store.list({ prefix: layout.results })) {
      if (layout.numberOf(key) === null) continue;
      yield (await store.read(key)).bytes
        .toString("utf8")
        .split("\n")
        .filter((line) => line !== "");
    }
  };
  return { file, parts: read() };
}

/** Of a dataset that has a run that finished; its job says what the rows of all runs are. */
async function datasetRows({ root, dataset }: FoundDataset, { stores }: Context): Promise<Rows> {
  const { run, index } = dataset.current!;
  const out = root.uriOf(datasetLayout.run(run));
  const file = await readJobFile(stores.at(out));
  if (!file) throw new CapfleetError("OBJECT_NOT_FOUND", `${out}${layout.job} is gone`);
  const read = async function* () {
    for await (const rows of viewRows(root, index, stores)) yield rows.map(({ line }) => line);
  };
  return { file, parts: read() };
}

async function watchJob({ file, state }: Pick<FoundJob, "file" | "state">, context: Context): Promise<void> {
  const display = new ProgressDisplay();
  const redis = optionalRedis(context);
  try {
    for (;;) {
      const fresh = (await context.states.find(file.id)) ?? state;
      if (fresh.ended) break;
      const now = await readStatus(fresh, context.stores, redis);
      if (now) display.show(now);
      await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    }
  } finally {
    display.clear();
    redis?.disconnect();
  }
  await report({ file, state, out: state.out, existed: true }, context, null);
}

function describe(job: JobStatus): string {
  const { id, task, model, input, out, created } = job;
  return [
    `${id}  ${progressLine(job)}`,
    `  task       ${task} with ${model}`,
    `  input      ${input}`,
    `  output     ${out}`,
    `  created    ${created}`,
    `  committed  ${count(job.committed)} rows`,
  ].join("\n");
}

const isErrorRow = (line: string) => (JSON.parse(line) as ResultRow).error !== undefined;

function keptLines(line: string): string[] {
  const { id, image, pairs = [] } = JSON.parse(line) as ResultRow;
  const kept = pairs.filter(({ kept }) => kept);
  return kept.map(({ text, origin, itm }) => JSON.stringify({ id, image, text, origin, itm }));
}

const print = (line: string) => process.stdout.write(`${line}\n`);

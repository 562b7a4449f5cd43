/** Commands that change or show jobs: submit, status, watch, pause, cancel. */
import type { JobFile } from "@capfleet/shared/contract";
import { findModel, type Model } from "@capfleet/shared/models";
import { foretell, workforce } from "../estimate/foretell.ts";
import { create } from "../incremental/start.ts";
import type { AskedJob } from "../jobs/asked-job.ts";
import { ENDED, type JobStatus, readStatus } from "../jobs/status.ts";
import { endJob } from "../reconcile/finisher.ts";
import { JobTracker } from "../reconcile/tracker.ts";
import { type Context, type FoundJob, findJob, optionalRedis, wakeReconciler } from "./context.ts";
import { datasetStatus, describeDataset, findDataset, nothingNewText } from "./dataset.ts";
import { costText, count, progressLine } from "./format.ts";
import { ProgressDisplay, showingDownload } from "./progress.ts";
import { report } from "./run.ts";

const WATCH_MS = 1_000;
/** How long a run may take to end a job that was cancelled: the worker looks at every record, the producer every 2 s. */
const ENDS_WITHIN_MS = 8_000;

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
  if (!created.existed) await sayEstimate(file, context);
  if (wait) await watchJob({ file, state }, context);
}

async function sayEstimate(file: JobFile, context: Context): Promise<void> {
  const redis = optionalRedis(context);
  const line = await foretell(file, await workforce(file, redis), context);
  redis?.disconnect();
  if (line) process.stderr.write(`${line}\n`);
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
  const state = await context.states.want(file.id, intent);
  await wakeReconciler(context, file.id);
  if (intent === "cancelled" && state.runner === "local") await endCancelled(file.id, context);
  print(
    intent === "paused"
      ? `paused ${file.id}; what is in work commits`
      : `cancelled ${file.id}; what is committed stays`,
  );
}

/** A `capfleet run` that is at work on it ends it; where there is none, this does. Ending a job twice changes nothing. */
async function endCancelled(id: string, { states, stores }: Context): Promise<void> {
  const deadline = performance.now() + ENDS_WITHIN_MS;
  while (performance.now() < deadline) {
    if ((await states.find(id))?.ended) return;
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
  }
  const state = await states.find(id);
  const tracker = state && !state.ended && (await JobTracker.open(state, stores));
  if (tracker) await endJob(tracker, "cancelled", null, states);
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
  const cost = costText(job.cost, ENDED.includes(job.state));
  return [
    `${id}  ${progressLine(job)}`,
    `  task       ${task} with ${model}`,
    `  input      ${input}`,
    `  output     ${out}`,
    `  created    ${created}`,
    `  committed  ${count(job.committed)} rows`,
    ...(cost === null ? [] : [`  cost       ${cost}`]),
  ].join("\n");
}

const print = (line: string) => process.stdout.write(`${line}\n`);

/** Commands that change or show jobs: submit, status, watch, pause, cancel, results. */
import { once } from "node:events";
import { CapfleetError, layout, type ResultRow } from "@capfleet/shared/contract";
import { findModel, type Model } from "@capfleet/shared/models";
import { createJob } from "../jobs/create.ts";
import { type JobStatus, readStatus } from "../jobs/status.ts";
import { endJob } from "../reconcile/finisher.ts";
import { JobTracker } from "../reconcile/tracker.ts";
import { type Context, type FoundJob, findJob, optionalRedis, wakeReconciler } from "./context.ts";
import { count, progressLine } from "./format.ts";
import type { AskedJob } from "./job-options.ts";
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
  const created = await createJob(request, found, context.stores, context.states);
  await wakeReconciler(context, created.file.id);
  const { file, state, out } = created;
  if (json) print(JSON.stringify({ id: file.id, out, existed: created.existed }));
  else print(file.id);
  if (wait) await watchJob({ file, state }, context);
}

export async function status(job: string | undefined, json: boolean, context: Context): Promise<void> {
  const redis = optionalRedis(context);
  try {
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

export interface ResultsOptions {
  /** Only rows that failed. */
  errors: boolean;
  /** The texts that a job that cleans has kept: a line each. */
  kept: boolean;
}

/** Rows in input order, as JSONL on stdout. Throws INVALID_OPTION. */
export async function results(job: string, { errors, kept }: ResultsOptions, context: Context): Promise<void> {
  const { store, file } = await findJob(job, context);
  const cleans = file.spec.task.name === "capfilt" || file.spec.task.name === "filter";
  if (kept && !cleans)
    throw new CapfleetError("INVALID_OPTION", `--kept: ${file.id} is ${file.spec.task.name}, which keeps all`);
  if (kept && errors) throw new CapfleetError("INVALID_OPTION", "--kept and --errors: give one of them");
  for await (const { key } of store.list({ prefix: layout.results })) {
    if (layout.numberOf(key) === null) continue;
    const text = (await store.read(key)).bytes.toString("utf8");
    const all = () => text.split("\n").filter((line) => line !== "");
    const some = kept ? all().flatMap(keptLines) : errors ? all().filter(isErrorRow) : null;
    const lines = some === null ? text : some.map((line) => `${line}\n`).join("");
    if (!process.stdout.write(lines)) await once(process.stdout, "drain");
  }
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

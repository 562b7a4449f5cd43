/** `capfleet delete`: a job that has ended, or a dataset, with everything that was written. */
import { createInterface } from "node:readline/promises";
import { CapfleetError, datasetLayout, type JobFile, type JobState } from "@capfleet/shared/contract";
import { listRuns } from "../incremental/root.ts";
import { readJobFile } from "../jobs/create.ts";
import { removeAll, removeJob } from "../jobs/remove.ts";
import { type Context, findJob, isJobId } from "./context.ts";
import { type FoundDataset, findDataset } from "./dataset.ts";
import { plural } from "./format.ts";

/**
 * A job, or a dataset of incremental runs whole. Asks first, unless `yes`. Throws JOB_STATE for a job that has not ended,
 * and for a run whose rows a dataset shows; NOT_CONFIRMED; and the stores' errors.
 */
export async function deleteJob(job: string, { yes }: { yes: boolean }, context: Context): Promise<void> {
  const dataset = isJobId(job) ? null : await findDataset(job, context);
  if (dataset) return deleteDataset(dataset, yes, context);
  const { state, file } = await findState(job, context);
  const { id, out } = state;
  const root = file?.spec.input.since?.root;
  if (root && state.ended === "finished") {
    throw new CapfleetError(
      "JOB_STATE",
      `${id} is a run of ${root}, which shows its rows; delete that whole, or nothing`,
    );
  }
  expectEnded(state);
  if (!yes) await confirm(`Delete ${id} (${state.ended}) and all that it wrote below ${out}?`);
  const { objects, left } = await removeJob(state, context.stores, context.states);
  process.stdout.write(`deleted ${id}: ${plural(objects, "object")} below ${out}\n`);
  if (left !== null) process.stderr.write(`not deleted, since no job wrote it: ${out}${left}\n`);
}

/** First all runs are known to have ended. dataset.json goes last, so that the same command finds what is left. */
async function deleteDataset({ root }: FoundDataset, yes: boolean, context: Context): Promise<void> {
  const { stores, states } = context;
  const runs: JobState[] = [];
  for (const run of await listRuns(root)) {
    const out = root.uriOf(datasetLayout.run(run));
    if (await readJobFile(stores.at(out))) runs.push((await findJob(out, context)).state);
  }
  for (const state of runs) expectEnded(state);
  if (!yes) await confirm(`Delete the dataset ${root.uri} with ${plural(runs.length, "run")}?`);
  let objects = 0;
  for (const state of runs) objects += (await removeJob(state, stores, states)).objects;
  objects += await removeAll(root, datasetLayout.indexes);
  await root.delete(datasetLayout.dataset);
  process.stdout.write(`deleted ${root.uri}: ${plural(objects + 1, "object")}, ${plural(runs.length, "run")}\n`);
}

function expectEnded({ id, ended }: JobState): void {
  if (ended) return;
  throw new CapfleetError("JOB_STATE", `${id} has not ended; cancel it first (capfleet cancel ${id}), then delete it`);
}

/** By its id, also a job whose deletion was interrupted after its output had gone. */
async function findState(job: string, context: Context): Promise<{ state: JobState; file: JobFile | null }> {
  const state = isJobId(job) && (await context.states.find(job));
  if (!state) return findJob(job, context);
  const file = await readJobFile(context.stores.at(state.out));
  return { state, file: file?.id === state.id ? file : null };
}

async function confirm(question: string): Promise<void> {
  if (!process.stdin.isTTY) throw new CapfleetError("NOT_CONFIRMED", "there is nobody to ask here");
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await terminal.question(`${question} [y/N] `);
    if (!/^y(es)?$/i.test(answer.trim())) throw new CapfleetError("NOT_CONFIRMED", "nothing was deleted");
  } finally {
    terminal.close();
  }
}

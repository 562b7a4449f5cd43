/** What commands say of a dataset of incremental runs. */
import { type DatasetRoot, datasetLayout } from "@capfleet/shared/contract";
import { normalizeUri, type Store } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { listRuns, readRoot } from "../incremental/root.ts";
import type { NothingNew } from "../incremental/start.ts";
import { readJobFile } from "../jobs/create.ts";
import { newState } from "../jobs/states.ts";
import { type JobStatus, readStatus, readSummary } from "../jobs/status.ts";
import type { Context } from "./context.ts";
import { plural, progressLine } from "./format.ts";

/** The last ones are what somebody looks for. */
const RUNS_SHOWN = 20;
const ENDED = ["finished", "cancelled", "failed"];

export interface FoundDataset {
  root: Store;
  dataset: DatasetRoot;
}

export const nothingNewText = ({ nothingNew: { run, entries } }: NothingNew) =>
  `nothing new: ${plural(entries, "image")}, all labelled as of run ${run}`;

/** Null where the location is no dataset's root. Throws INVALID_URI, OUTPUT_IN_USE and the store's errors. */
export async function findDataset(given: string, { stores }: Context): Promise<FoundDataset | null> {
  const root = stores.at(normalizeUri(given));
  const found = await readRoot(root);
  return found && { root, dataset: found.root };
}

interface DatasetStatus {
  root: string;
  input: string;
  /** Null before the first run has finished. */
  current: DatasetRoot["current"];
  /** The run under way. */
  pending: DatasetRoot["pending"];
  /** The last ones; `earlier` more came before. */
  runs: (JobStatus & { run: string })[];
  earlier: number;
}

/** Throws the stores' errors. */
export async function datasetStatus(
  { root, dataset }: FoundDataset,
  redis: Redis | null,
  context: Context,
): Promise<DatasetStatus> {
  const names = await listRuns(root);
  const runs: DatasetStatus["runs"] = [];
  for (const run of names.slice(-RUNS_SHOWN)) {
    const status = await runStatus(root.uriOf(datasetLayout.run(run)), redis, context);
    if (status) runs.push({ run, ...status });
  }
  const { input, current } = dataset;
  const hasEnded = runs.some(({ run, state }) => run === dataset.pending?.run && ENDED.includes(state));
  const pending = hasEnded ? null : dataset.pending;
  return { root: root.uri, input, current, pending, runs, earlier: Math.max(0, names.length - RUNS_SHOWN) };
}

export function describeDataset({ root, input, current, pending, runs, earlier }: DatasetStatus): string {
  const images = current ? `${plural(current.entries, "image")}, as of run ${current.run}` : "none yet";
  return [
    `dataset    ${root}`,
    `  input    ${input}`,
    `  images   ${images}`,
    ...(pending ? [`  pending  ${pending.run}`] : []),
    ...(earlier > 0 ? [`  ${plural(earlier, "earlier run")}`] : []),
    ...runs.map((status) => `  ${status.run}  ${status.id}  ${status.task}  ${progressLine(status)}`),
  ].join("\n");
}

/** Null where there is no job yet. */
async function runStatus(out: string, redis: Redis | null, { stores, states }: Context): Promise<JobStatus | null> {
  const store = stores.at(out);
  const file = await readJobFile(store);
  if (!file) return null;
  const known = await states.find(file.id);
  const state = known ?? { ...newState(file, out, "local"), ended: (await readSummary(store))?.state ?? null };
  return readStatus(state, stores, redis);
}

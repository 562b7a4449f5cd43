/**
 * The start of an incremental run: is there anything to do, is another run at it, and the job for it.
 *
 *   dataset.json → pending? → listing against index → claim (If-Match) → runs/<run>/job.json → <state>/jobs/<id>.json
 *
 * Whoever dies in between leaves nothing, a claim, or a job; the same command goes on with each. A claim without a job is
 * anybody's: whose job.json is there first has it.
 */
import {
  CapfleetError,
  type DatasetRoot,
  datasetLayout,
  type Input,
  type JobFile,
  type JobSpec,
  SCHEMA_VERSION,
} from "@capfleet/shared/contract";
import { InStep, listImages, readIndex } from "@capfleet/shared/datasets";
import { faultPoint } from "@capfleet/shared/faults";
import type { Model } from "@capfleet/shared/models";
import type { Store, Stores } from "@capfleet/shared/storage";
import {
  adopt,
  type CreatedJob,
  createJob,
  expectEmpty,
  fingerprintOf,
  type JobRequest,
  locate,
  newJobId,
  placeJob,
  readJobFile,
  specOf,
} from "../jobs/create.ts";
import type { JobStates } from "../jobs/states.ts";
import { readSummary } from "../jobs/status.ts";
import { checkInput } from "../plan/input.ts";
import { contentOf, type FoundRoot, readRoot, writeRoot } from "./root.ts";

export type Current = NonNullable<DatasetRoot["current"]>;
type Claim = NonNullable<DatasetRoot["pending"]>;

/** The dataset is as its input is. */
export interface NothingNew {
  nothingNew: Current;
  root: string;
}

/** The job that was asked for, or a run of the dataset that was. Throws what these throw. */
export function create(
  request: JobRequest,
  models: readonly Model[],
  stores: Stores,
  states: JobStates,
): Promise<CreatedJob | NothingNew> {
  const start = request.incremental ? createRun : createJob;
  return start(request, models, stores, states);
}

/**
 * The job of a further run of the dataset at `request.output`, or of the one under way where it is the same; nothing is
 * written where there is nothing to do. `name` is the run's (by default the time, UTC, to the second); names sort by time.
 *
 * Throws DATASET_BUSY, and what `createJob` throws.
 */
export async function createRun(
  request: JobRequest,
  models: readonly Model[],
  stores: Stores,
  states: JobStates,
  name: string = runName(new Date()),
): Promise<CreatedJob | NothingNew> {
  const { input, out } = await locate(request, models, stores);
  const root = stores.at(out);
  for (;;) {
    const found = await findRoot(input, root);
    const { current, pending } = found?.root ?? { current: null, pending: null };
    const plain = specOf(request, input, models);
    const index = current?.fingerprint === contentOf(plain) ? current.index : null;
    const spec: JobSpec = { ...plain, input: { ...input, since: { root: out, index } } };
    const there = pending && (await lookAt(pending, root, stores, states));
    if (there && there !== "ended" && there !== "claimed") {
      const where = `${out}${datasetLayout.run(pending.run)}`;
      const same: JobSpec = { ...plain, input: { ...input, since: there.spec.input.since } };
      if (there.fingerprint === fingerprintOf(same))
        return { ...(await adopt(there, where, request, models, states)), existed: true };
      throw new CapfleetError("DATASET_BUSY", `${where} (${there.id}) is a run of ${out} that has not ended`);
    }
    await checkInput(plain, stores);
    if (current && index !== null && !(await hasChanged(stores.at(input.uri), root, current)))
      return { nothingNew: current, root: out };

    let claim = there === "claimed" ? pending : null;
    if (!claim) {
      claim = { run: await freeName(root, name), job: newJobId() };
      const claimed: DatasetRoot = { schema: SCHEMA_VERSION, input: input.uri, current, pending: claim };
      // Dying before this line leaves nothing; after it, the claim.
      if (!(await writeRoot(root, claimed, found?.etag ?? null))) continue;
      faultPoint("run.claimed", claim.run);
    }
    const job = await placeJob(
      spec,
      claim.job,
      `${out}${datasetLayout.run(claim.run)}`,
      request,
      models,
      stores,
      states,
    );
    // Null: the claim was another's who is at work still, and has used it now.
    if (job) return job;
  }
}

/** The dataset, where there is one. Throws INVALID_OPTION and OUTPUT_IN_USE: runs of `input` can't make one at `root`. */
export async function findRoot(input: Input, root: Store): Promise<FoundRoot | null> {
  if (input.kind !== "prefix") {
    const message = `--incremental is for a prefix or folder of images; ${input.uri} is another kind of input`;
    throw new CapfleetError("INVALID_OPTION", message);
  }
  const found = await readRoot(root);
  if (!found) await expectEmpty(root);
  else if (found.root.input !== input.uri) {
    throw new CapfleetError("OUTPUT_IN_USE", `${root.uri} is the dataset of ${found.root.input}, not of ${input.uri}`);
  }
  return found;
}

/** The job of a claim that is under way; else whether it has ended, or was never made. */
async function lookAt(
  { run, job }: Claim,
  root: Store,
  stores: Stores,
  states: JobStates,
): Promise<JobFile | "ended" | "claimed"> {
  const store = stores.at(`${root.uri}${datasetLayout.run(run)}`);
  const state = await states.find(job);
  const file = await readJobFile(store);
  // The state is written after the file, and read before it: with the state alone, somebody has deleted the run.
  if (!file) return state ? "ended" : "claimed";
  // Nobody may be there to end a job of one machine that has been cancelled.
  const hasEnded = state ? state.ended !== null || state.intent === "cancelled" : (await readSummary(store)) !== null;
  return hasEnded ? "ended" : file;
}

/** Whether an image is new, another, or gone; it stops at the first that is new or another. */
async function hasChanged(source: Store, root: Store, { index, entries }: Current): Promise<boolean> {
  const known = new InStep(readIndex(root, index));
  let images = 0;
  for await (const { key, etag } of listImages(source, null)) {
    if ((await known.at(key))?.etag !== etag) return true;
    images += 1;
  }
  return images !== entries;
}

/** Of a run that starts, or is due, at a time: UTC, to the second. */
export const runName = (time: Date) =>
  time
    .toISOString()
    .replace(/\.\d+Z$/, "Z")
    .replaceAll(":", "-");

async function freeName(root: Store, name: string): Promise<string> {
  const isTaken = async (run: string) => {
    for await (const _ of root.list({ prefix: datasetLayout.run(run) })) return true;
    return false;
  };
  let free = name;
  for (let n = 2; await isTaken(free); n++) free = `${name}-${n}`;
  return free;
}

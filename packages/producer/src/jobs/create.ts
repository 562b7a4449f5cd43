/** Making a job: everything that can be known to be wrong is found here, before anything exists. */
import { createHash } from "node:crypto";
import {
  CAPFLEET_VERSION,
  CapfleetError,
  datasetLayout,
  type Format,
  type Input,
  type JobFile,
  type JobSpec,
  type JobState,
  type JobTaskSpec,
  jobFileSchema,
  type Lane,
  layout,
  MAX_GIVEN_CHARACTERS,
  rolesOf,
  SCHEMA_VERSION,
  type TaskSpec,
} from "@capfleet/shared/contract";
import { faultPoint } from "@capfleet/shared/faults";
import type { Model } from "@capfleet/shared/models";
import { contains, normalizeUri, type Store, type Stores } from "@capfleet/shared/storage";
import { monotonicFactory } from "ulid";
import { checkFormat } from "../export/formats.ts";
import { type Columns, checkInput, parseInput, resolveInput } from "../plan/input.ts";
import { type JobStates, newState } from "./states.ts";

const ulid = monotonicFactory();

/** A job's own texts, escaped as badly as can be, and room for the rest. */
const MAX_JOB_BYTES = 8 * MAX_GIVEN_CHARACTERS;

export interface JobRequest {
  task: JobTaskSpec;
  input: string;
  columns: Columns;
  output: string;
  limit: number | null;
  shardSize: number | null;
  format: Format;
  lane: Lane;
  maxErrorRate: number;
  /** As in JobSpec. */
  readable: string[] | null;
  runner: JobState["runner"];
  /** The output is the root of a dataset, and the job a run of it; see incremental/. */
  incremental: boolean;
}

export interface CreatedJob {
  file: JobFile;
  state: JobState;
  out: string;
  /** The output already held this very job. */
  existed: boolean;
}

/**
 * `models`: one per role of the task, in their order.
 *
 * Throws TASK_UNSUPPORTED, INVALID_OPTION, INVALID_URI, INPUT_NOT_FOUND, INPUT_EMPTY, MANIFEST_INVALID, TAR_INVALID,
 * LOCATION_FORBIDDEN, OUTPUT_IN_USE, OUTPUT_INSIDE_INPUT, or the stores' errors.
 */
export async function createJob(
  request: JobRequest,
  models: readonly Model[],
  stores: Stores,
  states: JobStates,
): Promise<CreatedJob> {
  const { input, out } = await locate(request, models, stores);
  const spec = specOf(request, input, models);
  const there = await ownerOf(stores.at(out), fingerprintOf(spec));
  if (there) return { ...(await adopt(there, out, request, models, states)), existed: true };
  await checkInput(spec, stores);
  const job = await placeJob(spec, newJobId(), out, request, models, stores, states);
  if (job) return job;
  // Somebody was quicker: with the very same job, or with another one.
  const owner = await ownerOf(stores.at(out), fingerprintOf(spec));
  if (owner) return { ...(await adopt(owner, out, request, models, states)), existed: true };
  throw new CapfleetError("OUTPUT_IN_USE", `${out} has just been taken by another job`);
}

/** Where a job reads and writes, once its models and locations are known to go together. */
export async function locate({ task, ...request }: JobRequest, models: readonly Model[], stores: Stores) {
  checkFormat(task, request.format, "--format");
  for (const [i, role] of rolesOf(task).entries()) checkModel(role, models[i]!);
  const input = await resolveInput(parseInput(request.input, request.columns), stores);
  const out = normalizeUri(request.output.endsWith("/") ? request.output : `${request.output}/`);
  if (input.uri.endsWith("/") && contains(input.uri, out)) {
    throw new CapfleetError("OUTPUT_INSIDE_INPUT", `the output ${out} lies inside the input ${input.uri}`);
  }
  return { input, out };
}

export function specOf(request: JobRequest, input: Input, models: readonly Model[]): JobSpec {
  const { task, limit, shardSize, format, lane, readable } = request;
  return { task, engines: models.map(({ ref }) => ref), input, limit, shardSize, format, lane, readable };
}

export const newJobId = () => `job_${ulid()}`;

/** Null where the output has a job by now. */
export async function placeJob(
  spec: JobSpec,
  id: string,
  out: string,
  request: JobRequest,
  models: readonly Model[],
  stores: Stores,
  states: JobStates,
): Promise<CreatedJob | null> {
  const file: JobFile = {
    schema: SCHEMA_VERSION,
    id,
    capfleet: CAPFLEET_VERSION,
    created: new Date().toISOString(),
    fingerprint: fingerprintOf(spec),
    spec,
  };
  // From here on the output is ours. Dying before the next line leaves a job that the same command adopts.
  const put = await stores.at(out).putIfAbsent(layout.job, JSON.stringify(file, null, 2));
  if (put.outcome === "exists") return null;
  faultPoint("job.file.written", id);
  return { ...(await adopt(file, out, request, models, states)), existed: false };
}

/** The job in an output, by its job.json; null where there is none. */
export async function readJobFile(store: Store): Promise<JobFile | null> {
  if (!(await store.stat(layout.job))) return null;
  const { bytes } = await store.read(layout.job, { maxBytes: MAX_JOB_BYTES });
  const parsed = jobFileSchema.safeParse(parseJson(bytes));
  if (parsed.success) return parsed.data;
  throw new CapfleetError("OUTPUT_IN_USE", `${store.uriOf(layout.job)} is not a job of this version of capfleet`);
}

/**
 * Can the model do what the task asks? What only its tokenizer can tell (a prompt's length) the worker finds. Throws
 * TASK_UNSUPPORTED, INVALID_OPTION.
 */
export function checkModel(task: TaskSpec, { ref, tasks, maxNewTokens }: Model): void {
  if (!tasks.includes(task.name)) {
    throw new CapfleetError("TASK_UNSUPPORTED", `model ${ref.model} can't do "${task.name}"`);
  }
  if (!("decoding" in task) || (task.name === "vqa" && task.answers)) return;
  const asked = task.decoding.maxNewTokens;
  if (asked <= maxNewTokens) return;
  throw new CapfleetError("INVALID_OPTION", `--max-new-tokens ${asked}: ${ref.model} can make ${maxNewTokens} at most`);
}

export const fingerprintOf = ({ task, engines, input, limit, shardSize, format }: JobSpec): string =>
  digestOf([task, ...engines.map(({ digest }) => digest), input, limit, shardSize, format]);

export const digestOf = (meaning: unknown[]): string =>
  createHash("sha256").update(JSON.stringify(meaning)).digest("hex").slice(0, 32);

async function ownerOf(store: Store, fingerprint: string): Promise<JobFile | null> {
  const file = await readJobFile(store);
  if (file?.fingerprint === fingerprint) return file;
  if (file) throw new CapfleetError("OUTPUT_IN_USE", `${store.uri} already holds ${file.id}, which is another job`);
  await expectEmpty(store);
  return null;
}

/** Throws OUTPUT_IN_USE. */
export async function expectEmpty(store: Store): Promise<void> {
  for await (const { key } of store.list()) {
    const hint = key === datasetLayout.dataset ? "; go on with it by --incremental" : "";
    throw new CapfleetError("OUTPUT_IN_USE", `${store.uri} is not empty: it holds ${key}${hint}`);
  }
}

/** Makes the job one that `request.runner` looks after. */
export async function adopt(
  file: JobFile,
  out: string,
  request: JobRequest,
  models: readonly Model[],
  states: JobStates,
) {
  const { runner, maxErrorRate } = request;
  const folders = models.flatMap(({ folder }) => folder ?? []);
  const checkpoints = folders.length === models.length ? folders : null;
  const known = await states.find(file.id);
  if (known && (known.ended || known.runner === runner)) return { file, state: known, out };
  // Whoever asks for the job now looks after it from now on.
  if (known) return { file, state: await states.update(file.id, (job) => ({ ...job, runner, checkpoints })), out };
  const state: JobState = { ...newState(file, out, runner), checkpoints, maxErrorRate };
  await states.create(state);
  return { file, state, out };
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return null;
  }
}

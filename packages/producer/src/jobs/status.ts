/** How a job is doing: the reconciler's live figures where there are some, else what object storage says. */
import {
  ERRORS,
  type ErrorCode,
  type Intent,
  type JobFile,
  type JobState,
  layout,
  type Summary,
  summarySchema,
} from "@capfleet/shared/contract";
import { type Progress, readProgress } from "@capfleet/shared/queues";
import type { Store, Stores } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { readPlan, readPlanned } from "../plan/planner.ts";
import { Tally } from "../reconcile/tally.ts";
import { costSoFar } from "./cost.ts";
import { readJobFile } from "./create.ts";

/** A job this young need not have been looked at yet. */
const YOUNG_MS = 5_000;

export interface JobStatus extends Progress {
  id: string;
  task: string;
  model: string;
  input: string;
  out: string;
  created: string;
}

/** Null where the output no longer holds the job. Throws the stores' errors. */
export async function readStatus(state: JobState, stores: Stores, redis: Redis | null): Promise<JobStatus | null> {
  const store = stores.at(state.out);
  const file = await readJobFile(store);
  if (file?.id !== state.id) return null;
  return { ...identity(state, file), ...(await progressOf(state, store, redis)) };
}

/** Throws the stores' errors. */
export async function progressOf(state: JobState, store: Store, redis: Redis | null): Promise<Progress> {
  const live = state.ended || !redis ? null : await readProgress(redis, state.id).catch(() => null);
  // That it has ended is of an earlier attempt: the state says that first.
  if (!live || ENDED.includes(live.state)) return storedProgress(state, store);
  return asWanted(live, state.intent);
}

export const ENDED: readonly Progress["state"][] = ["finished", "cancelled", "failed"];

/** The reconciler's last word may be older than what is wanted of the job. */
function asWanted(live: Progress, intent: Intent): Progress {
  if (intent !== "run") return { ...live, state: intent };
  return live.state === "paused" ? { ...live, state: "running" } : live;
}

export async function readSummary(store: Store): Promise<Summary | null> {
  if (!(await store.stat(layout.summary))) return null;
  const { bytes } = await store.read(layout.summary);
  return summarySchema.parse(JSON.parse(bytes.toString("utf8")));
}

/** How many rows failed and may succeed. */
export const retryableOf = ({ errors }: Summary): number =>
  Object.entries(errors).reduce((sum, [code, n]) => sum + (ERRORS[code as ErrorCode]?.retryable ? n : 0), 0);

function identity(state: JobState, { spec }: JobFile) {
  const { id, out, created } = state;
  return {
    id,
    task: spec.task.name,
    model: spec.engines.map(({ model }) => model).join(" + "),
    input: spec.input.uri,
    out,
    created,
  };
}

async function storedProgress(state: JobState, store: Store): Promise<Progress> {
  const still = { rate: null, etaSeconds: null, reason: state.reason };
  const summary = state.ended ? await readSummary(store) : null;
  if (summary) {
    const { rows, failed, records, errors, scores, pairs } = summary;
    const counts = { planned: records ?? rows, total: records, done: rows, committed: rows, failed };
    const sums = { errors, scores, pairs };
    return { ...still, ...counts, sums, cost: summary.cost, state: summary.state, waiting: null };
  }
  const tally = new Tally(store, state.retries);
  const [plan, planned] = await Promise.all([readPlan(store), readPlanned(store), tally.load()]);
  const { rows, failed, errors, scores, pairs } = tally.sums;
  const word = state.intent === "run" ? (planned.shards === 0 ? "planning" : "running") : state.intent;
  const waiting = state.intent === "run" ? waitingFor(state) : null;
  const total = plan?.records ?? null;
  const counts = { planned: planned.records, total, done: rows, committed: rows, failed };
  const cost = costSoFar(state, tally, total);
  return { ...still, ...counts, sums: { errors, scores, pairs }, cost, state: state.ended ?? word, waiting };
}

function waitingFor(state: JobState): string | null {
  if (Date.now() - Date.parse(state.created) < YOUNG_MS) return null;
  if (state.runner === "local")
    return `unless a \`capfleet run\` is at work on it, go on with \`capfleet resume ${state.id}\``;
  return "no live figures: is `capfleet serve` running, and does CAPFLEET_REDIS_URL name its Redis?";
}

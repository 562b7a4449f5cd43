/** Jobs as callers see them. A job that is not theirs does not exist. */
import { CapfleetError, type JobFile, type JobState } from "@capfleet/shared/contract";
import type { Progress } from "@capfleet/shared/queues";
import type { Store, Stores } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import pLimit from "p-limit";
import { readJobFile } from "../jobs/create.ts";
import type { JobStates } from "../jobs/states.ts";
import { progressOf } from "../jobs/status.ts";
import { type Caller, maySee } from "./access.ts";
import type { JobView } from "./schemas.ts";

const READS_AT_ONCE = 8;
/** What a page may cost: it is shorter where so many jobs have not filled it. */
const MAX_LOOKED_AT = 200;

export interface Found {
  state: JobState;
  file: JobFile;
  store: Store;
}

export interface PageRequest {
  /** Only jobs older than the one with this id. */
  before: string | null;
  limit: number;
  state: JobView["state"] | null;
}

export class JobViews {
  readonly #stores: Stores;
  readonly #states: JobStates;
  readonly #redis: Redis;

  constructor(stores: Stores, states: JobStates, redis: Redis) {
    this.#stores = stores;
    this.#states = states;
    this.#redis = redis;
  }

  /** `caller`: null sees all. Throws JOB_NOT_FOUND and the stores' errors. */
  async find(id: string, caller: Caller | null): Promise<Found> {
    const state = /^job_[0-9A-Z]{26}$/.test(id) ? await this.#states.find(id) : null;
    const store = state && (!caller || maySee(caller, state.out)) ? this.#stores.at(state.out) : null;
    const file = store && (await readJobFile(store));
    if (state && store && file?.id === id) return { state, file, store };
    throw new CapfleetError("JOB_NOT_FOUND", `no job ${id}`);
  }

  async view({ state, file, store }: Found): Promise<JobView> {
    return viewOf(state, file, await progressOf(state, store, this.#redis));
  }

  /** The same of a job that was found a while ago. */
  async fresh(found: Found): Promise<JobView> {
    const state = await this.#states.find(found.state.id);
    return this.view(state ? { ...found, state } : found);
  }

  /** The newest first. Reads as many jobs as the page shows, or looks at; `next`: the last one that was looked at. */
  async page({ before, limit, state }: PageRequest, caller: Caller): Promise<{ jobs: JobView[]; next: string | null }> {
    const ids = await this.#states.newest(before, MAX_LOOKED_AT + 1);
    const jobs: JobView[] = [];
    const look = pLimit(READS_AT_ONCE);
    let at = 0;
    while (at < Math.min(ids.length, MAX_LOOKED_AT) && jobs.length < limit) {
      const some = ids.slice(at, Math.min(at + limit - jobs.length, MAX_LOOKED_AT));
      at += some.length;
      const views = await Promise.all(some.map((id) => look(() => this.#lookAt(id, caller))));
      jobs.push(...views.flatMap((view) => (view && (state === null || view.state === state) ? [view] : [])));
    }
    return { jobs, next: at < ids.length ? ids[at - 1]! : null };
  }

  /** Null for what is not the caller's, and for a job whose output has gone or can't be read. */
  async #lookAt(id: string, caller: Caller): Promise<JobView | null> {
    try {
      return await this.view(await this.find(id, caller));
    } catch (thrown) {
      if (thrown instanceof CapfleetError && thrown.code !== "INTERNAL") return null;
      throw thrown;
    }
  }
}

function viewOf(state: JobState, { spec }: JobFile, progress: Progress): JobView {
  const { planned, total, done, committed, failed, sums, rate, etaSeconds, cost, waiting, reason } = progress;
  return {
    id: state.id,
    state: progress.state,
    task: spec.task.name,
    models: spec.engines.map(({ model, precision }) => ({ model, precision })),
    input: spec.input.uri,
    output: state.out,
    lane: spec.lane,
    format: spec.format,
    created_at: state.created,
    counts: { planned, total, done, committed, failed },
    errors: sums.errors,
    scores: sums.scores ?? null,
    pairs: sums.pairs ?? null,
    rate,
    eta_seconds: etaSeconds,
    cost: cost && {
      worker_seconds: cost.workerSeconds,
      spent: cost.spent,
      per_1000: cost.per1000,
      estimated: cost.estimated,
      is_estimate: cost.isEstimate,
    },
    waiting,
    reason,
  };
}

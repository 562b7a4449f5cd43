/** What every command starts from. */
import { type Config, readConfig } from "@capfleet/shared/config";
import { CapfleetError, type JobFile, type JobState, layout } from "@capfleet/shared/contract";
import { createLog, type Logger } from "@capfleet/shared/log";
import { connectRedis, keys } from "@capfleet/shared/queues";
import { normalizeUri, type Store, type Stores, storesFromEnv } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { readRoot } from "../incremental/root.ts";
import { readJobFile } from "../jobs/create.ts";
import { JobStates, newState } from "../jobs/states.ts";
import { readSummary } from "../jobs/status.ts";

export interface Context {
  config: Config;
  stores: Stores;
  state: Store;
  states: JobStates;
  log: Logger;
}

/** `logLevel`: what is logged where CAPFLEET_LOG does not say. */
export function openContext(logLevel: "info" | "silent" = "silent"): Context {
  const config = readConfig();
  const stores = storesFromEnv();
  const state = stores.at(config.state);
  const log = createLog("producer", process.env.CAPFLEET_LOG || logLevel);
  return { config, stores, state, states: new JobStates(state), log };
}

export interface FoundJob {
  file: JobFile;
  state: JobState;
  store: Store;
}

export const isJobId = (given: string): boolean => /^job_[0-9A-Z]{26}$/.test(given);

/** A job by its id or its output. Throws JOB_NOT_FOUND. */
export async function findJob(given: string, { stores, states, config }: Context): Promise<FoundJob> {
  if (isJobId(given)) {
    const state = await states.find(given);
    if (!state) throw new CapfleetError("JOB_NOT_FOUND", `no job ${given} in ${config.state}`);
    const store = stores.at(state.out);
    const file = await readJobFile(store);
    if (file?.id !== given) throw new CapfleetError("JOB_NOT_FOUND", `${state.out} no longer holds ${given}`);
    return { file, state, store };
  }
  const out = normalizeUri(given.endsWith("/") ? given : `${given}/`);
  const store = stores.at(out);
  const file = await readJobFile(store);
  if (!file && (await readRoot(store))) {
    const message = `${out} is a dataset; name one of its runs, which \`capfleet status ${given}\` lists`;
    throw new CapfleetError("JOB_NOT_FOUND", message);
  }
  if (!file) throw new CapfleetError("JOB_NOT_FOUND", `${out} holds no job`);
  const known = await states.find(file.id);
  if (known) return { file, state: known, store };
  // Its state root is another machine's, or gone; the output has all that it takes to go on here.
  const summary = await readSummary(store);
  const state: JobState = {
    ...newState(file, out, "local"),
    retries: summary?.retries ?? 0,
    work: summary?.work ?? null,
    ended: summary?.state ?? ((await store.stat(layout.success)) ? "finished" : null),
    reason: summary?.reason ?? null,
  };
  await states.create(state);
  return { file, state, store };
}

/** The fleet's Redis, if one is configured; commands that only look can do without. */
export function optionalRedis({ config }: Context): Redis | null {
  return config.redisUrl ? connectRedis(config.redisUrl, "hasty") : null;
}

/** Tells the reconciler to look now; it looks every few seconds anyway. */
export async function wakeReconciler(context: Context, job: string): Promise<void> {
  const redis = optionalRedis(context);
  await redis?.publish(keys.wake(), job).catch(() => {});
  redis?.disconnect();
}

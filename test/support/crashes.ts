/** What the tests of crashes share: a fleet's parts in this process, pictures with known captions, and what may be left. */
import { copyFile, mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { readConfig } from "@capfleet/shared/config";
import { layout, type ResultRow } from "@capfleet/shared/contract";
import { FAULT_POINTS, type FaultPoint } from "@capfleet/shared/faults";
import { createLog } from "@capfleet/shared/log";
import { redisPrefix } from "@capfleet/shared/queues";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import type { Context } from "../../packages/producer/src/cli/context.ts";
import { JobStates } from "../../packages/producer/src/jobs/states.ts";
import { Reconciler } from "../../packages/producer/src/reconcile/reconciler.ts";
import { Scheduler } from "../../packages/producer/src/schedules/scheduler.ts";
import { DEMO, type Running, until } from "./processes.ts";

export const POINTS = Object.keys(FAULT_POINTS) as FaultPoint[];

/** What a producer of this environment starts from. */
export function contextOf(env: NodeJS.ProcessEnv): Context {
  const config = readConfig(env);
  const stores = storesFromEnv(env);
  const state = stores.at(config.state);
  return { config, stores, state, states: new JobStates(state), log: createLog("producer", "silent") };
}

/** `serve` without its API, in this process. Returns what ends it. */
export function producing({ config, stores, state, states, log }: Context): () => Promise<void> {
  const stop = new AbortController();
  const isMine = () => true;
  const scheduler = new Scheduler({ config, stores, state, states, log });
  const loop = new Reconciler({ stores, states, redisUrl: config.redisUrl!, log, isMine, scheduler }).run(stop.signal);
  return () => {
    stop.abort();
    return loop;
  };
}

/** The demo's first pictures, copied into a folder: their names, and what they show. */
export async function pictures(folder: string, count: number): Promise<Map<string, string>> {
  await mkdir(folder, { recursive: true });
  const lines = (await readFile(join(DEMO, "samples.jsonl"), "utf8")).trimEnd().split("\n").slice(0, count);
  const captions = new Map<string, string>();
  for (const line of lines) {
    const { image, truth } = JSON.parse(line) as { image: string; truth: { caption: string } };
    const name = image.slice(image.lastIndexOf("/") + 1);
    await copyFile(join(DEMO, image), join(folder, name));
    captions.set(name, truth.caption);
  }
  return captions;
}

/** Waits until a process dies at a point; returns what it was about. */
export async function diesAt(point: FaultPoint, running: Running): Promise<string> {
  const { child } = running;
  const isDead = () => child.exitCode !== null || child.signalCode !== null;
  // One that lives on must not get into the way of the next test.
  await until(`a process to die at ${point}`, isDead, 120).finally(() => running.kill("SIGKILL"));
  // The last line is its own: before it may be those of an isolated process.
  const [, name, about] = [...running.stderr.matchAll(/^fault point (\S+) \((.*)\): kill$/gm)].at(-1) ?? [];
  if (name !== point)
    throw new Error(`it ended (${await running.ended()}) elsewhere than at ${point}: ${running.stderr}`);
  return about!;
}

/** Data files that no row names. */
export async function orphans(out: Store, rows: readonly ResultRow[]): Promise<string[]> {
  const named = new Set(rows.map(({ data }) => data));
  const there = await Array.fromAsync(out.list({ prefix: layout.data }));
  return there.map(({ key }) => key).filter((key) => !named.has(key));
}

/** What Redis still has of a job, besides its last figures, which expire. */
export async function leftovers(redis: Redis, job: string): Promise<string[]> {
  const found = await redis.keys(`${redisPrefix()}:*${job}*`);
  return found.filter((key) => !key.startsWith(`${redisPrefix()}:progress:`));
}

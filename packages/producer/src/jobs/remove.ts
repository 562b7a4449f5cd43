/**
 * Deleting a job: what capfleet wrote below its output, and nothing else; then its state. The marks that say it is whole go
 * first and job.json last, so that one that is interrupted never looks whole, and is found again by the same command.
 */
import { rmdir } from "node:fs/promises";
import { join } from "node:path";
import { type JobState, layout } from "@capfleet/shared/contract";
import { parseUri, type Store, type Stores } from "@capfleet/shared/storage";
import pLimit from "p-limit";
import type { JobStates } from "./states.ts";

const MARKS = [layout.success, layout.summary, layout.report];
const FOLDERS = [layout.results, layout.data, layout.rollups, layout.shards];
const DELETES_AT_ONCE = 32;

export interface Removed {
  objects: number;
  /** An object below the output that is not the job's, where there is one: it stays. */
  left: string | null;
}

/** Safe to repeat. Throws the stores' errors. */
export async function removeJob(state: JobState, stores: Stores, states: JobStates): Promise<Removed> {
  const store = stores.at(state.out);
  let objects = 0;
  const remove = async (key: string) => {
    if (!(await store.stat(key))) return;
    await store.delete(key);
    objects += 1;
  };
  for (const key of MARKS) await remove(key);
  for (const prefix of FOLDERS) objects += await removeAll(store, prefix);
  for (const key of [layout.plan, layout.job]) await remove(key);
  await removeFolders(state.out);
  await states.delete(state.id);
  for await (const { key } of store.list()) return { objects, left: key };
  return { objects, left: null };
}

/** On a disk, unlike in a bucket, empty folders are left. */
async function removeFolders(out: string): Promise<void> {
  const location = parseUri(out);
  if (location.scheme !== "file") return;
  for (const folder of [...FOLDERS, ""]) await rmdir(join(location.path, folder)).catch(() => {});
}

/** Memory does not grow with the number of objects. */
async function removeAll(store: Store, prefix: string): Promise<number> {
  const limit = pLimit(DELETES_AT_ONCE);
  const running = new Set<Promise<void>>();
  let objects = 0;
  for await (const { key } of store.list({ prefix })) {
    const one: Promise<void> = limit(() => store.delete(key)).finally(() => running.delete(one));
    running.add(one);
    objects += 1;
    if (running.size >= 2 * DELETES_AT_ONCE) await Promise.race(running);
  }
  await Promise.all(running);
  return objects;
}

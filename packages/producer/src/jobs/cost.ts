/** What a job has cost, and will. */
import { addWork, type Cost, costOf, type JobState, NO_WORK, settle, type Work } from "@capfleet/shared/contract";
import type { Tally } from "../reconcile/tally.ts";

/** What all attempts took, the one that is at work included. */
export function workSoFar({ work, ended }: JobState, tally: Tally): Work {
  const before = work ?? NO_WORK;
  return ended ? before : addWork(before, settle(tally.work));
}

/** `total`: the job's records; null while they are being planned. */
export function costSoFar(state: JobState, tally: Tally, total: number | null): Cost | null {
  const done = tally.sums.rows + tally.kept;
  return costOf(workSoFar(state, tally), done, total === null ? null : Math.max(0, total - done));
}

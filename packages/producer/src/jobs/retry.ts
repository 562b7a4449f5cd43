/** Once more for the rows that failed and may succeed, and for what a failed job has left undone. */
import { type JobState, layout } from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";
import { takeUpAgain } from "../webhooks/webhook.ts";
import type { JobStates } from "./states.ts";
import { readSummary, retryableOf } from "./status.ts";

export interface Retried {
  /** As it is now. */
  state: JobState;
  /** Rows that failed and may succeed; null where only a look at all rows would tell. */
  rows: number | null;
}

export interface RetryRequest {
  job: JobState;
  store: Store;
  /** Null leaves it as it is. */
  maxErrorRate: number | null;
}

/**
 * Changes nothing where a finished job has no such rows (`rows` is 0). Throws JOB_STATE for a job that has not ended or was
 * cancelled.
 */
export async function retryJob(
  { job, store, maxErrorRate }: RetryRequest,
  { state, states }: { state: Store; states: JobStates },
): Promise<Retried> {
  const summary = job.ended === "finished" ? await readSummary(store) : null;
  const rows = summary && retryableOf(summary);
  if (rows === 0) return { state: job, rows };
  const again = await states.retry(job.id, maxErrorRate);
  // The output is not whole now. Dying before this line leaves a mark that the end of the retry writes again.
  await store.delete(layout.success);
  await takeUpAgain(job.id, state);
  return { state: again, rows };
}

/** Once more for the rows that failed and may succeed, and for what a failed job has left undone. */
import { type JobState, layout } from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";
import type { JobStates } from "./states.ts";
import { readSummary, retryableOf } from "./status.ts";

export interface Retried {
  /** As it is now. */
  state: JobState;
  /** Rows that failed and may succeed; null where only a look at all rows would tell. */
  rows: number | null;
}

/**
 * Changes nothing where a finished job has no such rows (`rows` is 0). Throws JOB_STATE for a job that has not ended or was
 * cancelled. `maxErrorRate`: null leaves it as it is.
 */
export async function retryJob(
  state: JobState,
  store: Store,
  states: JobStates,
  maxErrorRate: number | null,
): Promise<Retried> {
  const summary = state.ended === "finished" ? await readSummary(store) : null;
  const rows = summary && retryableOf(summary);
  if (rows === 0) return { state, rows };
  const again = await states.retry(state.id, maxErrorRate);
  // The output is not whole now. Dying before this line leaves a mark that the end of the retry writes again.
  await store.delete(layout.success);
  return { state: again, rows };
}

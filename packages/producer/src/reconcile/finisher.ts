/** The last objects of a job: its rollups, summary.json, _SUCCESS, and the word that it has ended. */
import {
  CAPFLEET_VERSION,
  type JobFile,
  type JobState,
  layout,
  SCHEMA_VERSION,
  type Summary,
} from "@capfleet/shared/contract";
import type { JobStates } from "../jobs/states.ts";
import { readPlan, readPlanned } from "../plan/planner.ts";
import { writeReport } from "../report/report.ts";
import type { Reason } from "./backoff.ts";
import type { JobTracker } from "./tracker.ts";

/** Safe to repeat: a producer that dies in the middle has cost nothing. */
export async function endJob(
  tracker: JobTracker,
  ended: NonNullable<JobState["ended"]>,
  reason: Reason | null,
  states: JobStates,
): Promise<void> {
  const { store, file, tally } = tracker;
  await tally.rollUp(true);
  // A producer that has just taken the job up may not have looked yet.
  const plan = tracker.plan ?? (await readPlan(store));
  const now = new Date();
  const { rows, failed, warned, errors, pairs } = tally.sums;
  const summary: Summary = {
    schema: SCHEMA_VERSION,
    id: file.id,
    state: ended,
    reason,
    task: file.spec.task.name,
    records: plan?.records ?? null,
    shards: (plan ?? (await readPlanned(store))).shards,
    retries: tracker.state.retries,
    rows,
    succeeded: rows - failed,
    failed,
    warned,
    errors,
    ...(pairs && { pairs }),
    created: file.created,
    ended: now.toISOString(),
    seconds: (now.getTime() - Date.parse(file.created)) / 1_000,
    provenance: provenanceOf(file),
  };
  await store.put(layout.summary, `${JSON.stringify(summary, null, 2)}\n`);
  if (pairs) await writeReport(file, pairs, store, tracker.stores);
  if (ended === "finished") await store.put(layout.success, "");
  tracker.state = await states.update(tracker.id, (state) => ({ ...state, ended, reason }));
}

function provenanceOf({ spec, fingerprint }: JobFile): Summary["provenance"] {
  return { capfleet: CAPFLEET_VERSION, schema: SCHEMA_VERSION, engines: spec.engines, fingerprint };
}

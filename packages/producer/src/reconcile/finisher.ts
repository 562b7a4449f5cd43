/** The last objects of a job: its rollups, summary.json, _SUCCESS, and the word that it has ended. */
import {
  CAPFLEET_VERSION,
  costOf,
  type JobFile,
  type JobState,
  layout,
  SCHEMA_VERSION,
  type Summary,
  type Work,
} from "@capfleet/shared/contract";
import { faultPoint } from "@capfleet/shared/faults";
import type { Store } from "@capfleet/shared/storage";
import { recordRate } from "../estimate/rates.ts";
import { releaseRun } from "../incremental/publish.ts";
import { workSoFar } from "../jobs/cost.ts";
import type { JobStates } from "../jobs/states.ts";
import { readPlan, readPlanned } from "../plan/planner.ts";
import { writeReport } from "../report/report.ts";
import type { Reason } from "./backoff.ts";
import { sweepData } from "./sweep.ts";
import type { JobTracker } from "./tracker.ts";

/** Safe to repeat: a producer that dies in the middle has cost nothing. */
export async function endJob(
  tracker: JobTracker,
  ended: NonNullable<JobState["ended"]>,
  reason: Reason | null,
  states: JobStates,
): Promise<void> {
  const { store, file, tally, stores, id } = tracker;
  faultPoint("finisher.begun", id);
  await tally.rollUp(true);
  // A producer that has just taken the job up may not have looked yet.
  const plan = tracker.plan ?? (await readPlan(store));
  const now = new Date();
  const { rows, failed, warned, errors, scores, pairs, files } = tally.sums;
  if (file.spec.format !== "jsonl") await sweepData(store, files ?? 0);
  faultPoint("finisher.swept", id);
  const work = workSoFar(tracker.state, tally);
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
    ...(scores && { scores }),
    ...(pairs && { pairs }),
    ...(files && { files }),
    created: file.created,
    ended: now.toISOString(),
    seconds: (now.getTime() - Date.parse(file.created)) / 1_000,
    work,
    cost: costOf(work, rows, 0),
    provenance: provenanceOf(file),
  };
  await store.put(layout.summary, `${JSON.stringify(summary, null, 2)}\n`);
  faultPoint("finisher.summary.written", id);
  if (pairs) await writeReport(file, pairs, store, stores);
  faultPoint("finisher.report.written", id);
  if (ended === "finished") await store.put(layout.success, "");
  faultPoint("finisher.success.written", id);
  await noteRate(tracker, work, now, states.store).catch(() => {});
  tracker.state = await states.update(id, (state) => ({
    ...state,
    ended,
    reason,
    work: state.ended ? state.work : work,
  }));
  faultPoint("finisher.state.written", id);
  if (file.spec.input.since) await releaseRun(file, stores);
  faultPoint("finisher.released", id);
}

/** Nothing depends on it: a job ends without it as well. */
async function noteRate({ file, machines }: JobTracker, work: Work, now: Date, state: Store): Promise<void> {
  const { seconds, pricedSeconds, cost } = work;
  const rows = work.rows - work.guessed;
  if (rows === 0 || seconds === 0) return;
  // A mean of equal prices is that price.
  const pricePerHour = pricedSeconds > 0 ? Number(((cost / pricedSeconds) * 3_600).toPrecision(12)) : null;
  const workerSeconds = (seconds * rows) / work.rows;
  const measured = { job: file.id, measured: now.toISOString(), rows, workerSeconds, pricePerHour };
  await recordRate(
    { task: file.spec.task.name, engines: file.spec.engines },
    { ...measured, machines: [...machines].sort() },
    state,
  );
}

function provenanceOf({ spec, fingerprint }: JobFile): Summary["provenance"] {
  return { capfleet: CAPFLEET_VERSION, schema: SCHEMA_VERSION, engines: spec.engines, fingerprint };
}

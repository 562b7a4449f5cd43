/** What each set of engines has to do, out of the jobs that need it. */
import type { FleetFigures, Load, Presence } from "@capfleet/shared/queues";
import type { JobTracker } from "../reconcile/tracker.ts";
import type { WorkRates } from "./rates.ts";

type Backlog = FleetFigures["backlog"][number];

const NO_LOAD: Load = { records: 0, shards: 0, seconds: 0, unknown: 0, probes: 0 };

/** `rate`: rows that a worker does in a second; null: not known. Paused jobs want nothing, nor do those that are ending. */
export function loadOf(tracker: JobTracker, rate: number | null): Load {
  const { state, planned, tally, backoff } = tracker;
  if (state.intent !== "run" || state.ended || tracker.fatal || tracker.isComplete) return NO_LOAD;
  const shards = planned.shards - tally.lowWater - tally.ahead;
  if (backoff.blocked) return { ...NO_LOAD, probes: shards > 0 ? 1 : 0 };
  // It is new, or this process has only just taken it up and does not know yet how far it is planned.
  if (planned.shards === 0) return { ...NO_LOAD, unknown: 1 };
  if (shards <= 0) return NO_LOAD;
  const records = Math.max(0, planned.records - tally.sums.rows - tally.kept);
  return { ...NO_LOAD, records, shards, ...(rate === null ? { unknown: 1 } : { seconds: records / rate }) };
}

export const addLoads = (a: Load, b: Load): Load => ({
  records: a.records + b.records,
  shards: a.shards + b.shards,
  seconds: a.seconds + b.seconds,
  unknown: a.unknown + b.unknown,
  probes: a.probes + b.probes,
});

export interface SetView {
  /** That need it. */
  trackers: readonly JobTracker[];
  /** Shards in Redis. */
  shards: number;
  workers: readonly Presence[];
  rates: WorkRates;
  /** Rows of a job that are labelled. */
  doneOf(job: string): number;
}

export function backlogOf(engines: string, { trackers, shards, workers, rates, doneOf }: SetView): Backlog {
  const jobs = new Set(trackers.map(({ id }) => id));
  const unlabelled = trackers.map(({ id, planned }) => Math.max(0, planned.records - doneOf(id)));
  const specs = trackers.map(({ file }) => file.spec);
  const models = new Map(specs.flatMap((spec) => spec.engines).map((engine) => [engine.digest, engine]));
  return {
    engines,
    models: [...models.values()].map(({ model, precision, digest }) => ({ model, precision, digest })),
    jobs: trackers.length,
    records: unlabelled.reduce((a, b) => a + b, 0),
    shards,
    ...rates.ofSet(engines),
    load: trackers.map((tracker) => loadOf(tracker, rates.of(tracker.file.spec))).reduce(addLoads, NO_LOAD),
    busy: workers.filter(({ inFlight }) => inFlight.some(({ job }) => jobs.has(job))).length,
  };
}

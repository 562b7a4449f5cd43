/**
 * What becomes of a schedule's runs, as changes of its file. A run is
 *
 *   begun (its due time is dealt with) → job known → ended, and among the last runs
 *
 * and there is never a second one in between: what falls due meanwhile waits, and is one run then.
 */
import { asCapfleetError } from "@capfleet/shared/contract";
import { runName } from "../incremental/start.ts";
import { latestDue } from "./due.ts";
import type { EndedRun, Schedule, ScheduleRun } from "./schedule.ts";

const RUNS_KEPT = 20;
const FIRST_PAUSE_MS = 10_000;
const LONGEST_PAUSE_MS = 600_000;

type Result = Pick<EndedRun, "outcome"> & Partial<Pick<EndedRun, "error" | "rows" | "failed">>;

/** Null where nothing is due, or a run is under way. */
export function begin(schedule: Schedule, now: number): Schedule | null {
  const { run, asked, paused, handled } = schedule;
  if (run) return null;
  const latest = latestDue(schedule, now);
  const isDue = !paused && latest !== null && latest > Date.parse(handled);
  if (!isDue && asked === null) return null;
  const due = isDue ? new Date(latest).toISOString() : asked!;
  const begun: ScheduleRun = {
    due,
    name: runName(new Date(due)),
    asked: asked !== null,
    started: iso(now),
    job: null,
    out: null,
    failures: 0,
    error: null,
    notBefore: null,
  };
  return { ...schedule, asked: null, run: begun, ...(isDue && { handled: due }) };
}

/** A start that failed goes on until the next due time; what is lost then is said. */
export function giveUp(schedule: Schedule, now: number): Schedule | null {
  const { run } = schedule;
  const latest = latestDue(schedule, now);
  if (!run?.error || run.job !== null || latest === null || latest <= Date.parse(run.due)) return null;
  return end(schedule, { outcome: "error", error: run.error }, now);
}

export interface MadeJob {
  job: string;
  out: string;
  /** It was there before this start. */
  existed: boolean;
}

/** `at`: when the start began. */
export function started(schedule: Schedule, { job, out, existed }: MadeJob, at: number): Schedule {
  const run = { ...schedule.run!, job, out, error: null, notBefore: null };
  return { ...(existed ? schedule : covering(schedule, at)), run };
}

export const nothingNew = (schedule: Schedule, at: number, now: number): Schedule =>
  end(covering(schedule, at), { outcome: "nothing new" }, now);

/** A run that is started late has looked at its input after further due times: it was theirs too. */
function covering(schedule: Schedule, at: number): Schedule {
  const latest = latestDue(schedule, at);
  if (latest === null || latest <= Date.parse(schedule.handled)) return schedule;
  return { ...schedule, handled: iso(latest) };
}

/** The job could not be made: once more later, where that may help. */
export function startFailed(schedule: Schedule, thrown: unknown, now: number): Schedule {
  const { code, message, retryable } = asCapfleetError(thrown);
  const error = { code, message };
  if (!retryable) return end(schedule, { outcome: "error", error }, now);
  const run = schedule.run!;
  const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** run.failures);
  return { ...schedule, run: { ...run, failures: run.failures + 1, error, notBefore: iso(now + pause) } };
}

export function end(schedule: Schedule, result: Result, now: number): Schedule {
  const { due, asked, started, job, out } = schedule.run!;
  const ended = { due, asked, started, job, out, ended: iso(now), error: null, rows: null, failed: null, ...result };
  return { ...schedule, run: null, runs: [...schedule.runs, ended].slice(-RUNS_KEPT) };
}

/** Null where it is already. */
export const paused = (schedule: Schedule): Schedule | null => (schedule.paused ? null : { ...schedule, paused: true });

/** What falls due while a schedule is paused does not count later. */
export const resumed = (schedule: Schedule, now: number): Schedule | null =>
  schedule.paused ? { ...schedule, paused: false, handled: iso(now) } : null;

/** Null where one is under way, or asked for already. */
export function ask(schedule: Schedule, now: number): Schedule | null {
  return schedule.run || schedule.asked ? null : { ...schedule, asked: iso(now) };
}

const iso = (time: number) => new Date(time).toISOString();

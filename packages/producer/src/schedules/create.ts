/** Making a schedule: what can be known to be wrong with its jobs is found now, not at night. */
import { CapfleetError, datasetLayout, SCHEMA_VERSION } from "@capfleet/shared/contract";
import type { Model } from "@capfleet/shared/models";
import { asFolder, normalizeUri, type Store, type Stores } from "@capfleet/shared/storage";
import { findRoot } from "../incremental/start.ts";
import type { AskedJob } from "../jobs/asked-job.ts";
import { type JobRequest, locate, specOf } from "../jobs/create.ts";
import { checkInput, parseInput } from "../plan/input.ts";
import type { Target } from "../webhooks/webhook.ts";
import { checkTiming, type Timing } from "./due.ts";
import { checkName, type Schedule, Schedules } from "./schedule.ts";

export interface NewSchedule extends Timing {
  name: string;
  /** As it was given, to be shown. */
  command: readonly string[];
  /** Models by names that mean the same wherever the producer runs. */
  asked: AskedJob;
  webhook: Target | null;
}

export interface Surroundings {
  state: Store;
  stores: Stores;
  /** As it is wherever the job is made. */
  findModel(name: string): Promise<Model>;
}

/**
 * Throws INVALID_OPTION, SCHEDULE_EXISTS, OUTPUT_IN_USE, and what submitting the job would throw; nothing exists then.
 */
export async function createSchedule(
  { name, cron, timeZone, command, asked, webhook }: NewSchedule,
  { state, stores, findModel }: Surroundings,
  now: number,
): Promise<Schedule> {
  checkName(name);
  checkTiming({ cron, timeZone }, now);
  const { precision, models } = asked;
  const request = anywhere(asked.request);
  const found = await Promise.all(models.map(findModel));
  const { input, out } = await locate(request, found, stores);
  const schedules = new Schedules(state);
  await expectOwn(out, name, schedules);
  if (request.incremental) await findRoot(input, stores.at(out));
  else await expectRuns(stores.at(out));
  await checkInput(specOf(request, input, found), stores);
  const time = new Date(now).toISOString();
  const schedule: Schedule = {
    schema: SCHEMA_VERSION,
    name,
    cron,
    timeZone,
    created: time,
    paused: false,
    command: [...command],
    job: { request: { ...request, runner: "fleet" }, models, precision, webhook },
    handled: time,
    asked: null,
    run: null,
    runs: [],
  };
  await schedules.create(schedule);
  return schedule;
}

/** Paths are this process's; the producer's may be others. */
function anywhere(request: JobRequest): JobRequest {
  return { ...request, input: parseInput(request.input).uri, output: asFolder(normalizeUri(request.output)) };
}

/** Runs are told apart by their due times alone. Throws OUTPUT_IN_USE. */
async function expectOwn(out: string, name: string, schedules: Schedules): Promise<void> {
  for await (const other of schedules.all()) {
    if (other.name === name) continue;
    const { schedule } = await schedules.read(other.name);
    if (schedule.job.request.output !== out) continue;
    throw new CapfleetError("OUTPUT_IN_USE", `${out} is the output of the schedule ${other.name}`);
  }
}

/** What another schedule has left may go on. Throws OUTPUT_IN_USE. */
async function expectRuns(out: Store): Promise<void> {
  for await (const { key } of out.list()) {
    // A dataset's dataset.json and a job's job.json come before its runs.
    if (key.startsWith(datasetLayout.runs)) return;
    throw new CapfleetError("OUTPUT_IN_USE", `${out.uri} is not empty: it holds ${key}`);
  }
}

/**
 * Starts what is due. Level-triggered, and under the reconciler's lease: each look compares the schedules' files with the
 * clock and with their jobs. It may die at any line: the next look goes on from what is written, and a start that is
 * repeated finds the same job. Starting may mean a long listing, so it happens beside the reconciler's rounds.
 */
import { asCapfleetError, CapfleetError } from "@capfleet/shared/contract";
import { faultPoint } from "@capfleet/shared/faults";
import type { Logger } from "@capfleet/shared/log";
import { readSummary } from "../jobs/status.ts";
import { begin, end, giveUp, nothingNew, started, startFailed } from "./run.ts";
import { type Schedule, Schedules } from "./schedule.ts";
import { type Surroundings, startRun } from "./start.ts";

export interface SchedulerOptions extends Surroundings {
  log: Logger;
  /** Milliseconds since 1970. */
  clock?: () => number;
}

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #clock: () => number;
  readonly #schedules: Schedules;
  readonly #known = new Map<string, { schedule: Schedule; etag: string }>();
  readonly #busy = new Set<string>();
  #isListing = false;
  #stop = new AbortController();

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#clock = options.clock ?? Date.now;
    this.#schedules = new Schedules(options.state);
  }

  /** Resolves when all that this look began is done; never rejects. What an earlier one is still at is left to it. */
  async look(): Promise<void> {
    if (this.#isListing) return;
    this.#isListing = true;
    const { signal } = this.#stop;
    try {
      await this.#refresh();
    } catch (thrown) {
      this.#options.log.warn({ err: asCapfleetError(thrown).message }, "schedules can't be read");
      return;
    } finally {
      this.#isListing = false;
    }
    await Promise.all([...this.#known.values()].map(({ schedule }) => this.#attend(schedule, signal)));
  }

  /** Another producer has the lease, or this one ends. What is being started is the other's to go on with. */
  stop(): void {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#known.clear();
  }

  async #refresh(): Promise<void> {
    const there = new Set<string>();
    for await (const { name, etag } of this.#schedules.all()) {
      there.add(name);
      if (this.#known.get(name)?.etag === etag) continue;
      try {
        this.#known.set(name, await this.#schedules.read(name));
      } catch (thrown) {
        this.#known.delete(name);
        this.#options.log.warn({ schedule: name, err: asCapfleetError(thrown).message }, "schedule can't be read");
      }
    }
    for (const name of this.#known.keys()) if (!there.has(name)) this.#known.delete(name);
  }

  async #attend(schedule: Schedule, signal: AbortSignal): Promise<void> {
    const { name } = schedule;
    if (this.#busy.has(name)) return;
    this.#busy.add(name);
    try {
      await this.#advance(schedule, signal);
    } catch (thrown) {
      const error = asCapfleetError(thrown);
      // Deleted, or another producer's: nothing to say.
      if (error.code !== "SCHEDULE_NOT_FOUND" && !signal.aborted)
        this.#options.log.warn({ schedule: name, err: error.message }, "schedule");
    } finally {
      this.#busy.delete(name);
    }
  }

  async #advance(seen: Schedule, signal: AbortSignal): Promise<void> {
    let schedule = seen;
    if (schedule.run?.job) schedule = await this.#follow(schedule, signal);
    if (giveUp(schedule, this.#clock())) {
      schedule = await this.#change(schedule, signal, (now) => giveUp(now, this.#clock()));
    }
    if (begin(schedule, this.#clock())) {
      schedule = await this.#change(schedule, signal, (now) => begin(now, this.#clock()));
      faultPoint("schedule.begun", schedule.name);
    }
    const { run } = schedule;
    if (!run || run.job !== null || this.#clock() < Date.parse(run.notBefore ?? run.started)) return;
    await this.#start(schedule, signal);
  }

  /** Has the job ended? */
  async #follow(schedule: Schedule, signal: AbortSignal): Promise<Schedule> {
    const { states, stores, log } = this.#options;
    const { job } = schedule.run!;
    const state = await states.find(job!);
    if (state && !state.ended) return schedule;
    const summary = state && (await readSummary(stores.at(state.out)));
    const gone = { code: "JOB_NOT_FOUND", message: `${job} was deleted before it had ended` };
    const result = state?.ended
      ? { outcome: state.ended, error: state.reason, rows: summary?.rows ?? null, failed: summary?.failed ?? null }
      : { outcome: "error" as const, error: gone };
    log.info({ schedule: schedule.name, job, outcome: result.outcome }, "scheduled run ended");
    return this.#change(schedule, signal, (now) => end(now, result, this.#clock()));
  }

  async #start(schedule: Schedule, signal: AbortSignal): Promise<void> {
    const { log } = this.#options;
    signal.throwIfAborted();
    const run = schedule.run!;
    const told = { schedule: schedule.name, due: run.due };
    const at = this.#clock();
    let change: (now: Schedule) => Schedule;
    try {
      const made = await startRun(schedule, run, this.#options);
      faultPoint("schedule.started", schedule.name);
      log.info({ ...told, job: made?.job ?? null }, made ? "scheduled run started" : "nothing new");
      change = (now) => (made ? started(now, made, at) : nothingNew(now, at, this.#clock()));
    } catch (thrown) {
      const { code, message } = asCapfleetError(thrown);
      log.warn({ ...told, code, err: message }, "scheduled run could not be started");
      change = (now) => startFailed(now, thrown, this.#clock());
    }
    // Dying before this line is as dying in the start: it is repeated, and finds the job.
    await this.#change(schedule, signal, change);
    faultPoint("schedule.noted", schedule.name);
  }

  /** Only while it is this very schedule still, at this very run. */
  async #change(seen: Schedule, signal: AbortSignal, change: (now: Schedule) => Schedule | null): Promise<Schedule> {
    return this.#schedules.update(seen.name, (now) => {
      signal.throwIfAborted();
      const isSame = now.created === seen.created && now.run?.name === seen.run?.name && now.run?.job === seen.run?.job;
      if (!isSame) throw new CapfleetError("SCHEDULE_NOT_FOUND", `${seen.name} has changed meanwhile`);
      return change(now);
    });
  }
}

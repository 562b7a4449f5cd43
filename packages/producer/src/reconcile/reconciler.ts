/**
 * The loop that makes jobs happen. Level-triggered: each round compares what should be (jobs and their intent, planned
 * shards) with what is (results, shards in Redis) and acts on the difference; messages only wake it early. It may die
 * at any line: the next one starts from object storage. Redis may be emptied: what is missing there is added again.
 *
 *   due schedules → jobs from the state root → reports → windows of the queues filled → finished jobs ended → progress shown
 */
import { asCapfleetError, type JobState } from "@capfleet/shared/contract";
import { faultPoint } from "@capfleet/shared/faults";
import type { Logger } from "@capfleet/shared/log";
import {
  addSample,
  connectRedis,
  type FleetFigures,
  keys,
  liveWorkers,
  type Presence,
  type Progress,
  type Report,
  servedSets,
  takeReports,
  writeFigures,
  writeProgress,
} from "@capfleet/shared/queues";
import type { Stores } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import type { JobStates } from "../jobs/states.ts";
import { backlogOf } from "../scale/load.ts";
import { WorkRates } from "../scale/rates.ts";
import type { Scheduler } from "../schedules/scheduler.ts";
import { endJob } from "./finisher.ts";
import { FleetHistory } from "./history.ts";
import { Lease } from "./lease.ts";
import { JobTracker } from "./tracker.ts";
import { type Outstanding, Windows } from "./windows.ts";

const ROUND_MS = 1_000;
/** Messages may come by the hundred; a round takes them together. */
const MIN_ROUND_MS = 50;
const RENEW_MS = 3_000;
/** How often the state root and the results are listed. */
const LOOK_MS = 2_000;
/** What the last round may take once the loop has been told to stop. */
const STOP_MS = 2_000;
/** So long nobody is told what the fleet has to do for a job that can't be read; then it does not count. */
const UNREAD_MS = 300_000;

export interface ReconcilerOptions {
  stores: Stores;
  states: JobStates;
  redisUrl: string;
  log: Logger;
  /** Which jobs are this one's to look after. */
  isMine(job: JobState): boolean;
  /** Null: nothing is scheduled here. */
  scheduler: Scheduler | null;
}

export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #redis: Redis;
  readonly #ears: Redis;
  readonly #lease: Lease;
  readonly #trackers = new Map<string, JobTracker>();
  readonly #seen = new Map<string, string>();
  readonly #windows: Windows;
  readonly #progress = new Map<string, Progress>();
  readonly #rows = { labelled: 0, failed: 0 };
  readonly #ended: FleetFigures["jobs"] = {};
  readonly #history = new FleetHistory();
  readonly #rates: WorkRates;
  /** Jobs that could not be read, and since when. */
  readonly #unread = new Map<string, number>();
  #lookAt = 0;
  #wake = Promise.withResolvers<void>();

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#redis = connectRedis(options.redisUrl, "patient");
    this.#ears = connectRedis(options.redisUrl, "patient");
    this.#lease = new Lease(this.#redis, "reconciler");
    this.#windows = new Windows(this.#redis, options.log);
    this.#rates = new WorkRates(options.states.store);
  }

  /** The last figures of a job that this reconciler looks after. */
  progressOf(job: string): Progress | null {
    return this.#progress.get(job) ?? null;
  }

  /** Runs until the signal; never throws: what goes wrong is logged and met again in the next round. */
  async run(signal: AbortSignal): Promise<void> {
    const { log } = this.#options;
    this.#ears.on("message", () => this.#wake.resolve());
    this.#ears.subscribe(keys.wake()).catch((error: Error) => log.warn({ err: error.message }, "no wake-ups"));
    signal.addEventListener("abort", () => this.#letGo(), { once: true });
    // A round may take longer than the lease lasts: taking up a large job means reading up to 1,000 results.
    const renewing = setInterval(() => this.#lease.renew().catch(() => {}), RENEW_MS);
    while (!signal.aborted) {
      const started = performance.now();
      this.#wake = Promise.withResolvers<void>();
      try {
        await this.#round();
      } catch (thrown) {
        if (!signal.aborted) log.warn({ err: asCapfleetError(thrown).message }, "round");
      }
      const spent = performance.now() - started;
      if (!signal.aborted && spent < MIN_ROUND_MS) await pause(MIN_ROUND_MS - spent);
      if (!signal.aborted) await Promise.race([this.#wake.promise, pause(ROUND_MS)]);
    }
    clearInterval(renewing);
    this.#options.scheduler?.stop();
    for (const tracker of this.#trackers.values()) tracker.stopWorking();
    await this.#lease.release().catch(() => {});
    await this.#windows.close();
    this.#redis.disconnect();
    this.#ears.disconnect();
  }

  /** A command to a Redis that is away waits for it; stopping must not. */
  #letGo(): void {
    this.#wake.resolve();
    setTimeout(() => this.#redis.disconnect(), STOP_MS).unref();
  }

  async #round(): Promise<void> {
    if (!(await this.#lease.hold())) return this.#stepDown();
    faultPoint("reconciler.leased");
    const now = performance.now();
    const look = now >= this.#lookAt;
    if (look) this.#lookAt = now + LOOK_MS;
    // Not waited for: a start may mean a long listing.
    if (look) void this.#options.scheduler?.look();
    if (look) await this.#lookForJobs();
    const workers = await liveWorkers(this.#redis);
    const slotsOf = (engines: string) => sum(workers.filter(runs(engines)).map(({ slots }) => slots));

    // What is in Redis is read before the reports: a shard that has left Redis by then has its report in.
    const outstanding = new Map<string, Outstanding>();
    for (const engines of this.#engineSets()) outstanding.set(engines, await this.#windows.outstanding(engines));
    for (const tracker of [...this.#trackers.values()]) {
      const here = outstanding.get(tracker.engines)!;
      try {
        await this.#advance(tracker, here, slotsOf(tracker.engines), look);
      } catch (thrown) {
        tracker.failed(asCapfleetError(thrown));
        this.#options.log.warn({ job: tracker.id, err: asCapfleetError(thrown).message }, "job");
      }
    }
    for (const [engines, here] of outstanding) {
      const mine = [...this.#trackers.values()].filter((tracker) => tracker.engines === engines);
      await this.#windows.fill(engines, mine, here, slotsOf(engines));
    }
    for (const tracker of this.#trackers.values()) await this.#show(tracker, workers);
    const figures = this.#figures(outstanding, workers, performance.now() - now);
    await writeFigures(this.#redis, figures);
    const sample = this.#history.sample(figures, workers, Date.now());
    if (sample) await addSample(this.#redis, sample);
    for (const [id, { state }] of this.#trackers) if (state.ended) await this.#forget(id);
  }

  #figures(outstanding: ReadonlyMap<string, Outstanding>, workers: Presence[], roundMs: number): FleetFigures {
    const jobs: FleetFigures["jobs"] = { ...this.#ended };
    const trackers = [...this.#trackers.values()];
    for (const { id, state } of trackers) {
      if (state.ended) this.#ended[state.ended] = (this.#ended[state.ended] ?? 0) + 1;
      const progress = this.#progress.get(id);
      if (progress) jobs[progress.state] = (jobs[progress.state] ?? 0) + 1;
    }
    const doneOf = (job: string) => this.#progress.get(job)?.done ?? 0;
    const backlog = [...outstanding].map(([engines, { count: shards }]) => {
      const mine = trackers.filter((tracker) => tracker.engines === engines);
      return backlogOf(engines, { trackers: mine, shards, workers, rates: this.#rates, doneOf });
    });
    const since = performance.now() - UNREAD_MS;
    const unread = [...this.#unread.values()].filter((first) => first > since).length;
    return { jobs, rows: this.#rows, backlog, roundSeconds: roundMs / 1_000, unread };
  }

  /** Another producer has the lease: its rounds count, ours would only repeat them. */
  #stepDown(): void {
    this.#options.scheduler?.stop();
    for (const tracker of this.#trackers.values()) tracker.stopWorking();
    this.#trackers.clear();
    this.#seen.clear();
    this.#unread.clear();
    this.#lookAt = 0;
  }

  /** Where the state root does not answer, the jobs that are known go on as they were: their shards' reports say what is wrong. */
  async #lookForJobs(): Promise<void> {
    try {
      await this.#refreshJobs();
    } catch (thrown) {
      this.#options.log.warn({ err: asCapfleetError(thrown).message }, "jobs can't be listed");
    }
  }

  async #refreshJobs(): Promise<void> {
    const { states, stores, isMine, log } = this.#options;
    for await (const { id, etag } of states.all()) {
      if (this.#seen.get(id) === etag) continue;
      try {
        const state = await states.find(id);
        const tracker = this.#trackers.get(id);
        if (state && tracker) {
          tracker.state = state;
          if (!isMine(state)) await this.#giveUp(tracker);
        } else if (state && !state.ended && isMine(state)) {
          const opened = await JobTracker.open(state, stores);
          // Nothing but a guess depends on it.
          if (opened) await this.#rates.recall(opened.file.spec).catch(() => {});
          if (opened) this.#trackers.set(id, opened);
          else log.warn({ job: id, out: state.out }, "the output does not hold this job");
        }
        this.#seen.set(id, etag);
        this.#unread.delete(id);
      } catch (thrown) {
        const { message, retryable } = asCapfleetError(thrown);
        log.warn({ job: id, err: message }, "job can't be read");
        if (retryable && !this.#unread.has(id)) this.#unread.set(id, performance.now());
      }
    }
  }

  /** Somebody else looks after the job now. */
  async #giveUp(tracker: JobTracker): Promise<void> {
    tracker.stopWorking();
    await this.#windows.withdraw(tracker, await this.#windows.outstanding(tracker.engines));
    this.#trackers.delete(tracker.id);
  }

  /** Planning, reports, intent, and the end of one job. */
  async #advance(tracker: JobTracker, here: Outstanding, slots: number, look: boolean): Promise<void> {
    const now = performance.now();
    for (;;) {
      const reports = await takeReports(this.#redis, tracker.id);
      if (reports.length > 0) faultPoint("reconciler.reports.taken", tracker.id);
      tracker.absorb(reports, now);
      this.#count(tracker, reports);
      if (reports.length === 0) break;
    }
    if (look) await tracker.tally.look();
    await tracker.tally.rollUp();
    tracker.checkErrorRate();

    const { intent } = tracker.state;
    if (intent === "run" && !tracker.fatal) tracker.keepPlanning(slots, now);
    else {
      // Nothing but its end is left of a paused job that is complete.
      if (intent !== "paused" || !tracker.isComplete) tracker.stopWorking();
      await this.#windows.withdraw(tracker, here);
    }
    // Where no worker lives, what Redis calls active is what a dead one had in work.
    const idle = (slots === 0 || !here.byJob.has(tracker.id)) && !tracker.isWorking;
    const { states } = this.#options;
    if (intent === "cancelled" && idle) await this.#end(tracker, "cancelled");
    else if (tracker.fatal && idle) await this.#end(tracker, "failed");
    else if (tracker.isComplete) {
      const { rows } = tracker.tally.sums;
      const { records } = tracker.plan!;
      const message = `${rows} rows were committed for ${records} records`;
      if (rows !== records) tracker.fatal = { code: "JOB_FAILED", message };
      else if (tracker.keepPublishing(now)) await endJob(tracker, "finished", null, states);
    }
  }

  async #end(tracker: JobTracker, ended: "cancelled" | "failed"): Promise<void> {
    await tracker.tally.look();
    await endJob(tracker, ended, tracker.fatal, this.#options.states);
  }

  #count({ file }: JobTracker, reports: readonly Report[]): void {
    for (const report of reports) {
      if (report.outcome !== "committed") continue;
      this.#rows.labelled += report.sums.rows - report.sums.failed;
      this.#rows.failed += report.sums.failed;
      if (report.work) this.#rates.add(file.spec, report.work);
    }
  }

  async #show(tracker: JobTracker, workers: Presence[]): Promise<void> {
    const progress = tracker.progress(workers, performance.now());
    this.#progress.set(tracker.id, progress);
    await writeProgress(this.#redis, tracker.id, progress);
  }

  async #forget(id: string): Promise<void> {
    this.#options.log.info({ job: id, ended: this.#trackers.get(id)?.state.ended }, "job ended");
    this.#trackers.delete(id);
    await this.#redis.del(keys.reports(id), keys.deaths(id));
  }

  #engineSets(): Set<string> {
    return new Set([...this.#trackers.values()].map((tracker) => tracker.engines));
  }
}

const runs = (engines: string) => (worker: Presence) => servedSets(worker.engines).includes(engines);
const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

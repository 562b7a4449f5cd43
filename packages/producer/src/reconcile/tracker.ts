/** One job as the reconciler sees it: how far it is planned and committed, what may go out next, what holds it up. */
import {
  asCapfleetError,
  type CapfleetError,
  ERRORS,
  type ErrorCode,
  type JobFile,
  type JobState,
  LANE_WEIGHTS,
  MAX_ERROR_RATE_ROWS,
  type Plan,
  workOf,
} from "@capfleet/shared/contract";
import { engineSet, type Presence, type Progress, type Report, servedSets } from "@capfleet/shared/queues";
import type { Store, Stores } from "@capfleet/shared/storage";
import { publishRun } from "../incremental/publish.ts";
import { costSoFar } from "../jobs/cost.ts";
import { readJobFile } from "../jobs/create.ts";
import { openDataset } from "../plan/input.ts";
import { PlanConflict, type Planned, planJob } from "../plan/planner.ts";
import { Backoff, type Reason } from "./backoff.ts";
import { Rate } from "./rate.ts";
import type { Runnable } from "./round-robin.ts";
import { Tally } from "./tally.ts";

const AGAIN_MS = 1_000;

export class JobTracker {
  /** As last read; the reconciler keeps it fresh. */
  state: JobState;
  readonly file: JobFile;
  readonly store: Store;
  readonly tally: Tally;
  readonly backoff = new Backoff();
  planned: Planned = { shards: 0, records: 0 };
  plan: Plan | null = null;
  /** Why the job can't finish, ever. */
  fatal: Reason | null = null;
  /** What workers were that have reported since this process took the job up: device and CPU. */
  readonly machines = new Set<string>();
  readonly stores: Stores;
  readonly #rate = new Rate();
  /** Planning, or publishing an incremental run. */
  #working: AbortController | null = null;
  #workAgainAt = 0;
  #isPublished = false;

  private constructor(state: JobState, file: JobFile, store: Store, stores: Stores) {
    this.state = state;
    this.file = file;
    this.store = store;
    this.tally = new Tally(store, state.retries);
    this.stores = stores;
  }

  /** Takes a job up where its objects say it is. Throws the stores' errors. */
  static async open(state: JobState, stores: Stores): Promise<JobTracker | null> {
    const store = stores.at(state.out);
    const file = await readJobFile(store);
    if (file?.id !== state.id) return null;
    const tracker = new JobTracker(state, file, store, stores);
    await tracker.tally.load();
    return tracker;
  }

  get id(): string {
    return this.state.id;
  }

  /** Plans in the background until the plan is whole; call it in every round. */
  keepPlanning(slots: number, now: number): void {
    if (this.plan || this.fatal) return;
    this.#keepWorking(now, async (signal) => {
      this.plan = await planJob({
        store: this.store,
        spec: this.file.spec,
        dataset: openDataset(this.file.spec, this.stores),
        slots,
        signal,
        onShard: (planned) => {
          this.planned = planned;
        },
      });
    });
  }

  /**
   * Makes the rows of an incremental run those of its dataset, in the background: it may take minutes. Call it in every
   * round of a complete job, until it says that nothing of the kind is left to do.
   */
  keepPublishing(now: number): boolean {
    if (this.#isPublished || !this.file.spec.input.since) return true;
    const { shards } = this.plan!;
    const { out, retries } = this.state;
    this.#keepWorking(now, async (signal) => {
      await publishRun({ file: this.file, out, shards, retries }, this.stores, signal);
      this.#isPublished = true;
    });
    return false;
  }

  /** One thing at a time; what fails is tried again a little later. */
  #keepWorking(now: number, work: (signal: AbortSignal) => Promise<void>): void {
    if (this.#working || now < this.#workAgainAt) return;
    const stop = new AbortController();
    this.#working = stop;
    work(stop.signal)
      .catch((thrown: unknown) => {
        this.#workAgainAt = performance.now() + AGAIN_MS;
        if (!stop.signal.aborted && !(thrown instanceof PlanConflict)) this.failed(asCapfleetError(thrown));
      })
      .finally(() => {
        this.#working = null;
      });
  }

  stopWorking(): void {
    this.#working?.abort();
  }

  get isWorking(): boolean {
    return this.#working !== null;
  }

  absorb(reports: readonly Report[], now: number): void {
    for (const report of reports) {
      if (report.outcome === "committed") {
        const { shard, sums, work } = report;
        this.tally.add(shard, sums, work ? workOf(work) : null);
        if (work) this.machines.add(`${work.device} (${work.cpu})`);
        this.backoff.succeeded(report.shard);
      } else if (isFatal(report.code)) {
        this.fatal = { code: report.code, message: report.message };
      } else {
        this.backoff.failed(report.shard, report, now);
      }
    }
  }

  /** A job that mostly fails is not worth going on with. One that is complete is: nothing would be saved. */
  checkErrorRate(): void {
    const { rows, failed, errors } = this.tally.sums;
    if (this.fatal || this.isComplete || rows < MAX_ERROR_RATE_ROWS || failed <= rows * this.state.maxErrorRate) return;
    const [[code, most]] = Object.entries(errors).sort(([, a], [, b]) => b - a) as [[string, number]];
    const message = `${failed} of ${rows} rows have failed, ${most} of them with ${code}; at most ${this.state.maxErrorRate} of them may`;
    this.fatal = { code: "TOO_MANY_ERRORS", message };
  }

  /** An error outside of any shard. */
  failed({ code, message }: CapfleetError): void {
    if (isFatal(code)) this.fatal = { code, message };
    else this.backoff.jobFailed({ code, message }, performance.now());
  }

  /** Shards that may go out now, in order, `most` at the most. */
  next(most: number, outstanding: ReadonlySet<number>, now: number): number[] {
    if (this.backoff.blocked) {
      if (outstanding.size > 0 || !this.backoff.mayProbe(now)) return [];
      most = Math.min(most, 1);
    }
    const found: number[] = [];
    for (let shard = this.tally.lowWater; shard < this.planned.shards && found.length < most; shard++) {
      if (this.tally.isCommitted(shard) || outstanding.has(shard)) continue;
      if (this.backoff.blocked || this.backoff.mayTry(shard, now)) found.push(shard);
    }
    return found;
  }

  runnable(available: number): Runnable {
    const { shards, records } = this.planned;
    const cost = shards === 0 ? 1 : records / shards;
    return { id: this.id, weight: LANE_WEIGHTS[this.file.spec.lane], cost, available };
  }

  /** What it needs of a worker; see `engineSet`. */
  get engines(): string {
    return engineSet(this.file.spec.engines);
  }

  get isComplete(): boolean {
    return this.plan !== null && this.tally.lowWater >= this.plan.shards;
  }

  progress(workers: readonly Presence[], now: number): Progress {
    const mine = workers.flatMap(({ inFlight }) => inFlight.filter(({ job }) => job === this.id));
    const open = mine.filter(({ shard }) => !this.tally.isCommitted(shard));
    const { rows, failed, errors, scores, pairs } = this.tally.sums;
    const total = this.plan?.records ?? null;
    const seen = rows + open.reduce((sum, shard) => sum + shard.rows, 0);
    const done = total === null ? seen : Math.min(seen, total);
    this.#rate.sample(done, now);
    const rate = this.#rate.perSecond;
    const waiting = this.#waitingFor(workers);
    const eta = rate && total !== null ? (total - done) / rate : null;
    return {
      state: this.#stateWord(),
      planned: this.planned.records,
      total,
      done,
      committed: rows,
      failed: failed + open.reduce((sum, shard) => sum + shard.failed, 0),
      sums: { errors, scores, pairs },
      rate,
      etaSeconds: eta,
      cost: costSoFar(this.state, this.tally, total),
      waiting,
      reason: this.fatal ?? this.backoff.blocked,
    };
  }

  #stateWord(): Progress["state"] {
    const { intent, ended } = this.state;
    if (ended) return ended;
    if (this.fatal) return "failed";
    if (intent !== "run") return intent;
    if (this.backoff.blocked) return "blocked";
    return this.planned.shards === 0 && !this.plan ? "planning" : "running";
  }

  #waitingFor(workers: readonly Presence[]): string | null {
    if (this.state.intent !== "run" || this.isComplete) return null;
    if (workers.some(({ engines }) => servedSets(engines).includes(this.engines))) return null;
    const all = workers.flatMap(({ engines }) => engines);
    const missing = this.file.spec.engines.filter(({ digest }) => all.every((engine) => engine.digest !== digest));
    if (missing.length === 0) {
      const names = this.file.spec.engines.map(({ model }) => model).join(" and ");
      return `no worker that runs both ${names} (capfleet-worker --models takes several)`;
    }
    const { model, digest } = missing[0]!;
    const other = all.find((engine) => engine.model === model);
    const hint = other ? `; workers run ${model} as engine ${other.digest}` : "";
    return `no worker for ${model} (engine ${digest})${hint}`;
  }
}

/** An error that no waiting mends. INTERNAL is tried again: it may be a worker's own trouble. */
function isFatal(code: string): boolean {
  const entry = ERRORS[code as ErrorCode];
  return entry !== undefined && !entry.retryable && code !== "INTERNAL";
}

/**
 * Takes shards from the queues of this worker's engines and sees each to its end. One set of slots for all queues.
 *
 * What becomes of a shard in BullMQ: committed, already committed or withdrawn → completed (and gone); a shard error →
 * failed (and gone; the reconciler, told by a report, adds it again later); the worker is stopping → back to waiting at
 * once. A worker that dies stops renewing its lock, and the shard is back after `LOCK_MS` and one stalled check. One that has
 * twice taken its worker down is done in a process of its own (isolation/), which may die instead.
 */
import { asCapfleetError, CapfleetError, type EngineRef, type Timed } from "@capfleet/shared/contract";
import { faultPoint } from "@capfleet/shared/faults";
import type { Logger } from "@capfleet/shared/log";
import {
  beginShard,
  endShard,
  giveBackShard,
  sendReport,
  servedSets,
  type WorkPayload,
  workPayloadSchema,
  workQueue,
} from "@capfleet/shared/queues";
import type { Job } from "bullmq";
import type { Redis } from "ioredis";
import pLimit, { type LimitFunction } from "p-limit";
import type { Isolation } from "../isolation/isolation.ts";
import { type InFlight, runShard, type ShardContext, type ShardOutcome } from "../pipeline/shard.ts";
import { WorkClock } from "./clock.ts";
import { Listener } from "./listener.ts";
import { orAborted, Stopping } from "./stopping.ts";

const LOCK_MS = 10_000;
const STALLED_CHECK_MS = 5_000;
/** Workers that a shard may take down before its records get a process of their own. */
const MAX_DEATHS = 2;
/** What dies then is not that process: it is a shard error, so that each attempt waits longer. */
const MAX_ISOLATED_DEATHS = 4;

/** What reports say of the worker. */
export type Machine = Pick<Timed, "pricePerHour" | "device" | "cpu">;

interface ConsumerParts {
  redis: Redis;
  context: ShardContext;
  isolation: Pick<Isolation, "enter">;
  machine: Machine;
  log: Logger;
}

export class Consumer {
  readonly inFlight = new Map<string, InFlight>();
  readonly #listener: Listener<WorkPayload>;
  readonly #slots: LimitFunction;
  readonly #running = new Map<string, Promise<void>>();
  readonly #redis: Redis;
  readonly #context: ShardContext;
  readonly #isolation: Pick<Isolation, "enter">;
  readonly #clock = new WorkClock();
  readonly #machine: Machine;
  readonly #log: Logger;
  /** Aborted, with a Stopping, as soon as the worker is told to stop. */
  readonly #leaving = new AbortController();
  readonly #givenBack = { shards: 0, rows: 0 };

  constructor(engines: EngineRef[], slots: number, { redis, context, isolation, machine, log }: ConsumerParts) {
    this.#redis = redis;
    this.#context = context;
    this.#isolation = isolation;
    this.#machine = machine;
    this.#log = log;
    this.#slots = pLimit(slots);
    const take = (job: Job<WorkPayload>) => this.#take(job);
    const timing = { concurrency: slots, lockMs: LOCK_MS, stalledCheckMs: STALLED_CHECK_MS };
    this.#listener = new Listener(servedSets(engines).map(workQueue), take, { redis, log, ...timing });
  }

  start(): void {
    this.#listener.start();
  }

  /**
   * Takes no more shards, puts those back that wait here for a slot, gives those in work `graceMs` to finish, and puts the
   * rest back. Returns how many were put back in the middle, and their labelled rows, which will be labelled again.
   */
  async stop(graceMs: number): Promise<{ shards: number; rows: number }> {
    this.#leaving.abort(new Stopping());
    await this.#listener.stop(graceMs);
    return this.#givenBack;
  }

  /** Rows that are labelled and not committed: so much is lost with this worker. */
  get rowsInHand(): number {
    return [...this.inFlight.values()].reduce((sum, { rows }) => sum + rows, 0);
  }

  /** After Redis was emptied, a shard that is still being worked on here may come again: it is the same work. */
  #take(job: Job<WorkPayload>): Promise<void> {
    const id = job.id!;
    const same = this.#running.get(id);
    if (same) return same;
    const work = this.#inTurn(() => this.#work(job)).finally(() => this.#running.delete(id));
    this.#running.set(id, work);
    return work;
  }

  /** With several queues more shards may be taken than there are slots. */
  async #inTurn(work: () => Promise<void>): Promise<void> {
    this.#leaving.signal.throwIfAborted();
    const done = Promise.withResolvers<void>();
    const turn = new Promise<void>((begin) => {
      void this.#slots(() => {
        begin();
        return done.promise;
      });
    });
    try {
      await orAborted(turn, this.#leaving.signal);
      await work();
    } finally {
      done.resolve();
    }
  }

  async #work(job: Job<WorkPayload>): Promise<void> {
    const id = job.id!;
    const { job: jobId, shard, out, retries } = workPayloadSchema.parse(job.data);
    const progress: InFlight = { job: jobId, shard, out, retries, rows: 0, failed: 0 };
    this.inFlight.set(id, progress);
    const work = this.#clock.take();
    try {
      faultPoint("worker.shard.taken", shard);
      const result = await this.#run(progress);
      this.#log.debug({ job: jobId, shard, outcome: result.outcome }, "shard");
      if (result.outcome === "committed") {
        const timed = { rows: progress.rows, seconds: work.seconds, ...this.#machine };
        await sendReport(this.#redis, jobId, { ...result, shard, work: timed });
      }
      faultPoint("worker.report.after", shard);
    } catch (thrown) {
      if (thrown instanceof Stopping) {
        this.#givenBack.shards += 1;
        this.#givenBack.rows += progress.rows;
        throw thrown;
      }
      const { code, message, stack } = asCapfleetError(thrown);
      this.#log.warn({ job: jobId, shard, code, err: message, ...(code === "INTERNAL" && { stack }) }, "shard error");
      await sendReport(this.#redis, jobId, { outcome: "failed", shard, code, message });
      throw thrown;
    } finally {
      work.put();
      this.inFlight.delete(id);
    }
  }

  async #run(progress: InFlight): Promise<ShardOutcome> {
    const { job, shard } = progress;
    const { signal } = this.#listener;
    signal.throwIfAborted();
    const deaths = await beginShard(this.#redis, job, shard);
    // Dying from here on counts; whatever else becomes of the shard does not.
    try {
      if (deaths >= MAX_ISOLATED_DEATHS) {
        // Once more after that.
        await giveBackShard(this.#redis, job, shard);
        throw new CapfleetError("WORKER_LOST", `shard ${shard} has taken ${deaths} workers down`);
      }
      using place = deaths >= MAX_DEATHS ? this.#isolation.enter() : null;
      const result = await orAborted(runShard(progress, { ...this.#context, ...place }, signal), signal);
      await endShard(this.#redis, job, shard);
      return result;
    } catch (thrown) {
      await giveBackShard(this.#redis, job, shard);
      throw thrown;
    }
  }
}

/**
 * Takes shards from the queues of this worker's engines and sees each to its end. One set of slots for all queues.
 *
 * What becomes of a shard in BullMQ: committed, already committed or withdrawn → completed (and gone); a shard error →
 * failed (and gone; the reconciler, told by a report, adds it again later); the worker is stopping → back to waiting at
 * once. A worker that dies stops renewing its lock, and the shard is back after `LOCK_MS` and one stalled check.
 */
import { asCapfleetError, CapfleetError, type EngineRef, type Timed } from "@capfleet/shared/contract";
import type { Logger } from "@capfleet/shared/log";
import { sendReport, servedSets, type WorkPayload, workPayloadSchema, workQueue } from "@capfleet/shared/queues";
import type { Job } from "bullmq";
import type { Redis } from "ioredis";
import pLimit, { type LimitFunction } from "p-limit";
import { type InFlight, runShard, type ShardContext } from "../pipeline/shard.ts";
import { WorkClock } from "./clock.ts";
import { Listener } from "./listener.ts";
import { orAborted, Stopping } from "./stopping.ts";

const LOCK_MS = 10_000;
const STALLED_CHECK_MS = 5_000;
/** A shard that has taken this many workers down is reported as an error, so that it waits longer each time. */
const MAX_STALLED = 3;

/** What reports say of the worker. */
export type Machine = Pick<Timed, "pricePerHour" | "device" | "cpu">;

export class Consumer {
  readonly inFlight = new Map<string, InFlight>();
  readonly #listener: Listener<WorkPayload>;
  readonly #slots: LimitFunction;
  readonly #running = new Map<string, Promise<void>>();
  readonly #redis: Redis;
  readonly #context: ShardContext;
  readonly #clock = new WorkClock();
  readonly #machine: Machine;
  readonly #log: Logger;

  constructor(engines: EngineRef[], slots: number, redis: Redis, context: ShardContext, machine: Machine, log: Logger) {
    this.#redis = redis;
    this.#context = context;
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

  /** Takes no more shards, gives those in work `graceMs` to finish, puts the rest back, and returns. */
  stop(graceMs: number): Promise<void> {
    return this.#listener.stop(graceMs);
  }

  /** After Redis was emptied, a shard that is still being worked on here may come again: it is the same work. */
  #take(job: Job<WorkPayload>): Promise<void> {
    const id = job.id!;
    const same = this.#running.get(id);
    if (same) return same;
    const slot = this.#slots(() => this.#work(job));
    const work = orAborted(slot, this.#listener.signal).finally(() => this.#running.delete(id));
    this.#running.set(id, work);
    return work;
  }

  async #work(job: Job<WorkPayload>): Promise<void> {
    const id = job.id!;
    const { job: jobId, shard, out, retries } = workPayloadSchema.parse(job.data);
    const progress: InFlight = { job: jobId, shard, out, retries, rows: 0, failed: 0 };
    this.inFlight.set(id, progress);
    const work = this.#clock.take();
    try {
      this.#listener.signal.throwIfAborted();
      if (job.stalledCounter >= MAX_STALLED) {
        throw new CapfleetError("WORKER_LOST", `shard ${shard} has taken ${job.stalledCounter} workers down`);
      }
      const result = await runShard(progress, this.#context, this.#listener.signal);
      this.#log.debug({ job: jobId, shard, outcome: result.outcome }, "shard");
      if (result.outcome === "committed") {
        const timed = { rows: progress.rows, seconds: work.seconds, ...this.#machine };
        await sendReport(this.#redis, jobId, { ...result, shard, work: timed });
      }
    } catch (thrown) {
      if (thrown instanceof Stopping) throw thrown;
      const { code, message, stack } = asCapfleetError(thrown);
      this.#log.warn({ job: jobId, shard, code, err: message, ...(code === "INTERNAL" && { stack }) }, "shard error");
      await sendReport(this.#redis, jobId, { outcome: "failed", shard, code, message });
      throw thrown;
    } finally {
      work.put();
      this.inFlight.delete(id);
    }
  }
}

/**
 * Takes shards from the queues of this worker's engines and sees each to its end. One set of slots for all queues.
 *
 * What becomes of a shard in BullMQ: committed, already committed or withdrawn → completed (and gone); a shard error →
 * failed (and gone; the reconciler, told by a report, adds it again later); the worker is stopping → back to waiting at
 * once. A worker that dies stops renewing its lock, and the shard is back after `LOCK_MS` and one stalled check.
 */
import { asCapfleetError, CapfleetError, type EngineRef } from "@capfleet/shared/contract";
import type { Logger } from "@capfleet/shared/log";
import {
  redisPrefix,
  sendReport,
  servedSets,
  type WorkPayload,
  workPayloadSchema,
  workQueue,
} from "@capfleet/shared/queues";
import { type Job, WaitingError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import pLimit, { type LimitFunction } from "p-limit";
import { type InFlight, runShard, type ShardContext } from "../pipeline/shard.ts";
import { orAborted, Stopping } from "./stopping.ts";

const LOCK_MS = 10_000;
const STALLED_CHECK_MS = 5_000;
/** A shard that has taken this many workers down is reported as an error, so that it waits longer each time. */
const MAX_STALLED = 3;

export class Consumer {
  readonly inFlight = new Map<string, InFlight>();
  readonly #queues: Worker<WorkPayload>[];
  readonly #slots: LimitFunction;
  readonly #running = new Map<string, Promise<void>>();
  readonly #stopping = new AbortController();
  readonly #redis: Redis;
  readonly #context: ShardContext;
  readonly #log: Logger;

  constructor(engines: EngineRef[], slots: number, redis: Redis, context: ShardContext, log: Logger) {
    this.#redis = redis;
    this.#context = context;
    this.#log = log;
    this.#slots = pLimit(slots);
    this.#queues = servedSets(engines).map((set) => {
      const worker = new Worker<WorkPayload>(workQueue(set), (job, token) => this.#process(job, token), {
        connection: redis,
        prefix: redisPrefix(),
        concurrency: slots,
        lockDuration: LOCK_MS,
        stalledInterval: STALLED_CHECK_MS,
        maxStalledCount: Number.MAX_SAFE_INTEGER,
        removeOnComplete: { count: 0 },
        removeOnFail: { count: 0 },
        autorun: false,
      });
      worker.on("error", (error) => log.warn({ err: error.message }, "queue"));
      return worker;
    });
  }

  start(): void {
    for (const queue of this.#queues) {
      queue.run().catch((error: Error) => this.#log.error({ err: error.message }, "queue stopped"));
    }
  }

  /** Takes no more shards, gives those in work `graceMs` to finish, puts the rest back, and returns. */
  async stop(graceMs: number): Promise<void> {
    await Promise.all(this.#queues.map((queue) => queue.pause(true)));
    const finished = Promise.allSettled(this.#running.values());
    const timer = setTimeout(() => this.#stopping.abort(new Stopping()), graceMs);
    await finished;
    clearTimeout(timer);
    await Promise.all(this.#queues.map((queue) => queue.close()));
  }

  async #process(job: Job<WorkPayload>, token: string | undefined): Promise<void> {
    const id = job.id!;
    // After Redis was emptied, a shard that is still being worked on here may come again: it is the same work.
    const same = this.#running.get(id);
    if (same) return same;
    const work = orAborted(
      this.#slots(() => this.#work(job)),
      this.#stopping.signal,
    ).finally(() => this.#running.delete(id));
    this.#running.set(id, work);
    try {
      await work;
    } catch (thrown) {
      if (!(thrown instanceof Stopping)) throw thrown;
      await job.moveToWait(token);
      throw new WaitingError();
    }
  }

  async #work(job: Job<WorkPayload>): Promise<void> {
    const id = job.id!;
    const { job: jobId, shard, out, retries } = workPayloadSchema.parse(job.data);
    const progress: InFlight = { job: jobId, shard, out, retries, rows: 0, failed: 0 };
    this.inFlight.set(id, progress);
    try {
      this.#stopping.signal.throwIfAborted();
      if (job.stalledCounter >= MAX_STALLED) {
        throw new CapfleetError("WORKER_LOST", `shard ${shard} has taken ${job.stalledCounter} workers down`);
      }
      const result = await runShard(progress, this.#context, this.#stopping.signal);
      this.#log.debug({ job: jobId, shard, outcome: result.outcome }, "shard");
      if (result.outcome === "committed") await sendReport(this.#redis, jobId, { ...result, shard });
    } catch (thrown) {
      if (thrown instanceof Stopping) throw thrown;
      const { code, message, stack } = asCapfleetError(thrown);
      this.#log.warn({ job: jobId, shard, code, err: message, ...(code === "INTERNAL" && { stack }) }, "shard error");
      await sendReport(this.#redis, jobId, { outcome: "failed", shard, code, message });
      throw thrown;
    } finally {
      this.inFlight.delete(id);
    }
  }
}

/**
 * Answers interactive requests, ahead of the shards that are in work here; see queues/infer.ts for how they come and go.
 *
 * What becomes of a request in BullMQ: answered, or nobody waits any more → completed (and gone); the worker is stopping →
 * back to waiting at once. A worker that dies stops renewing its lock, and another one has the request some seconds later;
 * one that takes that down as well is answered with an error.
 */
import { asCapfleetError, CapfleetError, type EngineRef } from "@capfleet/shared/contract";
import type { Logger } from "@capfleet/shared/log";
import {
  answerRequest,
  type InferAnswer,
  type InferPayload,
  inferAnswerSchema,
  inferPayloadSchema,
  inferQueue,
  readRequest,
  redisPrefix,
  servedSets,
} from "@capfleet/shared/queues";
import { type Job, WaitingError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import pLimit, { type LimitFunction } from "p-limit";
import type { Labeler } from "../pipeline/labeler.ts";
import { orAborted, Stopping } from "./stopping.ts";

/** Shorter than a shard's: somebody waits. Doing a request twice costs little, and only one answer counts. */
const LOCK_MS = 4_000;
const STALLED_CHECK_MS = 2_000;
/** A request that has taken this many workers down is not begun again. */
const MAX_STALLED = 2;
/** Requests in work at once, whatever their engines: a few batches. */
const AT_ONCE = 32;

export class InferConsumer {
  readonly #queues: Worker<InferPayload>[];
  readonly #slots: LimitFunction = pLimit(AT_ONCE);
  readonly #running = new Set<Promise<void>>();
  readonly #stopping = new AbortController();
  readonly #redis: Redis;
  readonly #labeler: Pick<Labeler, "labelNow">;
  readonly #log: Logger;

  constructor(engines: EngineRef[], redis: Redis, labeler: Pick<Labeler, "labelNow">, log: Logger) {
    this.#redis = redis;
    this.#labeler = labeler;
    this.#log = log;
    this.#queues = servedSets(engines).map((set) => {
      const worker = new Worker<InferPayload>(inferQueue(set), (job, token) => this.#process(job, token), {
        connection: redis,
        prefix: redisPrefix(),
        concurrency: AT_ONCE,
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

  /** Takes no more requests, gives those in work `graceMs` to be answered, puts the rest back, and returns. */
  async stop(graceMs: number): Promise<void> {
    await Promise.all(this.#queues.map((queue) => queue.pause(true)));
    const finished = Promise.allSettled(this.#running);
    const timer = setTimeout(() => this.#stopping.abort(new Stopping()), graceMs);
    await finished;
    clearTimeout(timer);
    await Promise.all(this.#queues.map((queue) => queue.close()));
  }

  async #process(job: Job<InferPayload>, token: string | undefined): Promise<void> {
    const work = this.#slots(() => this.#work(job));
    this.#running.add(work);
    try {
      await work;
    } catch (thrown) {
      if (!(thrown instanceof Stopping)) throw thrown;
      await job.moveToWait(token);
      throw new WaitingError();
    } finally {
      this.#running.delete(work);
    }
  }

  /** Throws `Stopping`, and what Redis throws. */
  async #work(job: Job<InferPayload>): Promise<void> {
    this.#stopping.signal.throwIfAborted();
    const { asker } = inferPayloadSchema.parse(job.data);
    const answer = await this.#answer(job.id!, job.stalledCounter);
    if (!answer) return;
    const isFirst = await answerRequest(this.#redis, job.id!, asker, answer);
    const outcome = "error" in answer ? answer.error.code : "answered";
    this.#log.debug({ request: job.id, outcome, isFirst }, "infer");
  }

  /** Null where nobody waits any more. */
  async #answer(id: string, stalled: number): Promise<InferAnswer | null> {
    const found = await readRequest(this.#redis, id);
    if (!found) return null;
    const { request, image, leftMs } = found;
    const late = AbortSignal.timeout(leftMs);
    const signal = AbortSignal.any([this.#stopping.signal, late]);
    try {
      if (stalled >= MAX_STALLED) throw new CapfleetError("WORKER_LOST", `the request took ${stalled} workers down`);
      const { record, ...spec } = request;
      const row = await orAborted(this.#labeler.labelNow(record, { spec }, image, signal), signal);
      return inferAnswerSchema.parse({ row });
    } catch (thrown) {
      if (this.#stopping.signal.aborted) throw this.#stopping.signal.reason;
      if (late.aborted) return null;
      const { code, message, stack } = asCapfleetError(thrown);
      if (code === "INTERNAL") this.#log.warn({ request: id, code, err: message, stack }, "infer");
      return { error: { code, message } };
    }
  }
}

/**
 * Answers interactive requests, ahead of the shards that are in work here; see queues/infer.ts for how they come and go.
 *
 * What becomes of a request in BullMQ: answered, or nobody waits any more → completed (and gone); the worker is stopping →
 * back to waiting at once. A worker that dies stops renewing its lock, and another one has the request some seconds later;
 * one that takes that down as well is answered with an error.
 */
import { asCapfleetError, CapfleetError, type EngineRef } from "@capfleet/shared/contract";
import { faultPoint } from "@capfleet/shared/faults";
import type { Logger } from "@capfleet/shared/log";
import {
  answerRequest,
  type InferAnswer,
  type InferPayload,
  inferAnswerSchema,
  inferPayloadSchema,
  inferQueue,
  readRequest,
  servedSets,
} from "@capfleet/shared/queues";
import type { Job } from "bullmq";
import type { Redis } from "ioredis";
import pLimit from "p-limit";
import type { Labeler } from "../pipeline/labeler.ts";
import { Listener } from "./listener.ts";
import { orAborted } from "./stopping.ts";

/** Shorter than a shard's: somebody waits. Doing a request twice costs little, and only one answer counts. */
const LOCK_MS = 4_000;
const STALLED_CHECK_MS = 2_000;
/** A request that has taken this many workers down is not begun again. */
const MAX_STALLED = 2;
/** Requests in work at once, whatever their engines: a few batches. */
const AT_ONCE = 32;

export class InferConsumer {
  readonly #listener: Listener<InferPayload>;
  readonly #redis: Redis;
  readonly #labeler: Pick<Labeler, "labelNow">;
  readonly #log: Logger;

  constructor(engines: EngineRef[], redis: Redis, labeler: Pick<Labeler, "labelNow">, log: Logger) {
    this.#redis = redis;
    this.#labeler = labeler;
    this.#log = log;
    const slots = pLimit(AT_ONCE);
    const take = (job: Job<InferPayload>) => slots(() => this.#work(job));
    const timing = { concurrency: AT_ONCE, lockMs: LOCK_MS, stalledCheckMs: STALLED_CHECK_MS };
    this.#listener = new Listener(servedSets(engines).map(inferQueue), take, { redis, log, ...timing });
  }

  start(): void {
    this.#listener.start();
  }

  /** Takes no more requests, gives those in work `graceMs` to be answered, puts the rest back, and returns. */
  stop(graceMs: number): Promise<void> {
    return this.#listener.stop(graceMs);
  }

  /** Throws `Stopping`, and what Redis throws. */
  async #work(job: Job<InferPayload>): Promise<void> {
    this.#listener.signal.throwIfAborted();
    const { asker } = inferPayloadSchema.parse(job.data);
    const answer = await this.#answer(job.id!, job.stalledCounter);
    if (!answer) return;
    const isFirst = await answerRequest(this.#redis, job.id!, asker, answer);
    faultPoint("worker.request.answered", job.id!);
    const outcome = "error" in answer ? answer.error.code : "answered";
    this.#log.debug({ request: job.id, outcome, isFirst }, "infer");
  }

  /** Null where nobody waits any more. */
  async #answer(id: string, stalled: number): Promise<InferAnswer | null> {
    const found = await readRequest(this.#redis, id);
    if (!found) return null;
    const { request, image, leftMs } = found;
    faultPoint("worker.request.taken", request.record.id);
    const late = AbortSignal.timeout(leftMs);
    const stopping = this.#listener.signal;
    const signal = AbortSignal.any([stopping, late]);
    try {
      if (stalled >= MAX_STALLED) throw new CapfleetError("WORKER_CRASHED", `the request took ${stalled} workers down`);
      const { record, ...spec } = request;
      const row = await orAborted(this.#labeler.labelNow(record, { spec }, image, signal), signal);
      return inferAnswerSchema.parse({ row });
    } catch (thrown) {
      if (stopping.aborted) throw stopping.reason;
      if (late.aborted) return null;
      const { code, message, stack } = asCapfleetError(thrown);
      if (code === "INTERNAL") this.#log.warn({ request: id, code, err: message, stack }, "infer");
      return { error: { code, message } };
    }
  }
}

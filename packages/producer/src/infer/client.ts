/**
 * Asks the fleet for one record and waits for the answer:
 *
 *   a live worker for the engines? → the request, and an entry in their queue → the answer, or its time is over
 *
 * Whatever ends the wait, nothing of the request is left in Redis; what a process that dies leaves there expires.
 */
import { randomUUID } from "node:crypto";
import { CapfleetError, ERRORS, type ErrorCode } from "@capfleet/shared/contract";
import {
  engineSet,
  FEW_EVENTS,
  fromRedis,
  INFER_TIMEOUT_MS,
  type InferAnswer,
  type InferPayload,
  type InferRequest,
  type InferRow,
  inferQueue,
  liveWorkers,
  MAX_UPLOAD_BYTES,
  openRequest,
  type Presence,
  redisPrefix,
  servedSets,
  withdrawRequest,
} from "@capfleet/shared/queues";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import { Inbox } from "./inbox.ts";

/** How often a waiting request looks whether there is still a worker for it, and how old that knowledge may be. */
const WATCH_MS = 1_000;
const REMEMBER_MS = 500;

export interface InferOptions {
  /** How long an answer is waited for: at most MAX_INFER_TIMEOUT_MS. */
  timeoutMs?: number;
  /** Withdraws the request; `infer` then throws its reason. */
  signal?: AbortSignal;
}

/** For many requests at once, over two connections. */
export class InferClient {
  readonly #redis: Redis;
  readonly #inbox: Inbox;
  readonly #queues = new Map<string, Queue<InferPayload>>();
  #live: { at: number; workers: Promise<Presence[]> } | null = null;

  /** `redis` stays the caller's; it should fail at once while Redis is away, since somebody waits. */
  constructor(redis: Redis) {
    this.#redis = redis;
    this.#inbox = new Inbox(redis);
  }

  /**
   * The task's fields of the record's row. `image`: the bytes of an image file that is sent along, in place of
   * `record.image`; at most MAX_UPLOAD_BYTES.
   *
   * Throws NO_WORKER, INFER_BUSY, INFER_TIMEOUT, WORKER_CRASHED; IMAGE_EMPTY, IMAGE_TOO_LARGE and what else a worker finds of
   * the record, the store or the model; REDIS_UNREACHABLE, REDIS_REFUSED.
   */
  async infer(request: InferRequest, image: Uint8Array | null, options: InferOptions = {}): Promise<InferRow> {
    const { timeoutMs = INFER_TIMEOUT_MS, signal } = options;
    checkUpload(image);
    signal?.throwIfAborted();
    const set = engineSet(request.engines);
    const id = randomUUID();
    const given = performance.now();
    if (!(await fromRedis(this.#isServed(set)))) throw noWorker(request);
    const fits = await fromRedis(openRequest(this.#redis, id, request, image, timeoutMs));
    if (!fits) throw new CapfleetError("INFER_BUSY", "the fleet's interactive requests wait in a long queue");

    const stopped = Promise.withResolvers<never>();
    stopped.promise.catch(() => {});
    const late = new CapfleetError("INFER_TIMEOUT", `no answer within ${timeoutMs / 1_000} s`);
    const deadline = setTimeout(() => stopped.reject(late), timeoutMs - (performance.now() - given));
    const watch = setInterval(async () => {
      const isServed = await this.#isServed(set).catch(() => true);
      if (!isServed) stopped.reject(noWorker(request));
    }, WATCH_MS);
    const abort = () => stopped.reject(signal!.reason);
    signal?.addEventListener("abort", abort, { once: true });
    const answer = this.#inbox.expect(id);
    try {
      const kept = { removeOnComplete: true, removeOnFail: true };
      const added = this.#queue(set).add("infer", { v: 1, asker: this.#inbox.asker }, { jobId: id, ...kept });
      await Promise.race([fromRedis(added), stopped.promise]);
      return rowOf(await Promise.race([answer, stopped.promise]));
    } catch (thrown) {
      await this.#withdraw(set, id);
      throw thrown;
    } finally {
      clearTimeout(deadline);
      clearInterval(watch);
      signal?.removeEventListener("abort", abort);
      this.#inbox.forget(id);
    }
  }

  /** Requests that are still waiting are not answered any more. */
  async close(): Promise<void> {
    await this.#inbox.close(this.#redis);
    await Promise.all([...this.#queues.values()].map((queue) => queue.close().catch(() => {})));
  }

  /** One look serves all requests of a moment, unless it found nobody: a worker may have come since. */
  async #isServed(set: string): Promise<boolean> {
    const serves = (workers: Presence[]) => workers.some(({ engines }) => servedSets(engines).includes(set));
    if (this.#live && performance.now() - this.#live.at < REMEMBER_MS && serves(await this.#live.workers)) return true;
    const workers = liveWorkers(this.#redis);
    this.#live = { at: performance.now(), workers };
    return serves(await workers);
  }

  /** An entry that a worker has in hand goes when it is done; without its request nothing comes of it. */
  async #withdraw(set: string, id: string): Promise<void> {
    await Promise.allSettled([withdrawRequest(this.#redis, id), this.#queue(set).remove(id)]);
  }

  #queue(set: string): Queue<InferPayload> {
    const known = this.#queues.get(set);
    if (known) return known;
    const queue = new Queue<InferPayload>(inferQueue(set), {
      connection: this.#redis,
      prefix: redisPrefix(),
      streams: FEW_EVENTS,
    });
    // Whoever asks gets the error of the command that failed.
    queue.on("error", () => {});
    this.#queues.set(set, queue);
    return queue;
  }
}

function checkUpload(image: Uint8Array | null): void {
  if (image?.length === 0) throw new CapfleetError("IMAGE_EMPTY", "the image has no bytes");
  if (image && image.length > MAX_UPLOAD_BYTES) {
    const found = `the image has ${image.length} bytes; ${MAX_UPLOAD_BYTES} can be sent along with a request`;
    throw new CapfleetError("IMAGE_TOO_LARGE", found);
  }
}

function noWorker({ engines }: InferRequest): CapfleetError {
  const names = engines.map(({ model, precision }) => `${model} (${precision})`);
  return new CapfleetError("NO_WORKER", `no live worker runs ${names.join(" and ")}`);
}

function rowOf(answer: InferAnswer): InferRow {
  if ("row" in answer) return answer.row;
  const { code, message } = answer.error;
  // A newer worker may have codes that this producer does not know.
  if (code in ERRORS) throw new CapfleetError(code as ErrorCode, message);
  throw new CapfleetError("INTERNAL", `${code}: ${message}`);
}

/**
 * Takes jobs from queues of one kind, until it is told to stop: then it takes no more, gives those in work some time, and
 * puts the rest back to waiting at once, so that another worker need not wait for their locks to run out.
 */
import type { Logger } from "@capfleet/shared/log";
import { redisPrefix } from "@capfleet/shared/queues";
import { type Job, WaitingError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import { Stopping } from "./stopping.ts";

/** BullMQ asks a Redis that refuses writes again at once: what it says each time is logged once in so long. */
const REPEAT_MS = 10_000;

export interface ListenerOptions {
  redis: Redis;
  /** Jobs of each queue that are taken at once. */
  concurrency: number;
  /** How long a job is this worker's without a sign of life, and how often it is looked for those of dead workers. */
  lockMs: number;
  stalledCheckMs: number;
  log: Logger;
}

export class Listener<Payload> {
  readonly #workers: Worker<Payload>[];
  readonly #take: (job: Job<Payload>) => Promise<void>;
  readonly #running = new Set<Promise<void>>();
  readonly #stopping = new AbortController();
  readonly #log: Logger;
  /** What has been logged, and when last. */
  readonly #warned = new Map<string, number>();

  /** `take` sees a job to its end; once `signal` is aborted it throws its reason as soon as it can. */
  constructor(queues: readonly string[], take: (job: Job<Payload>) => Promise<void>, options: ListenerOptions) {
    const { redis, concurrency, lockMs, stalledCheckMs, log } = options;
    this.#take = take;
    this.#log = log;
    this.#workers = queues.map((queue) => {
      const worker = new Worker<Payload>(queue, (job, token) => this.#process(job, token), {
        connection: redis,
        prefix: redisPrefix(),
        concurrency,
        lockDuration: lockMs,
        stalledInterval: stalledCheckMs,
        // What becomes of a job that takes workers down is for `take` to say.
        maxStalledCount: Number.MAX_SAFE_INTEGER,
        removeOnComplete: { count: 0 },
        removeOnFail: { count: 0 },
        autorun: false,
      });
      worker.on("error", (error) => this.#warn(error.message));
      return worker;
    });
  }

  /** Aborted, with a Stopping, when what is in work has had its time. */
  get signal(): AbortSignal {
    return this.#stopping.signal;
  }

  start(): void {
    for (const worker of this.#workers) {
      worker.run().catch((error: Error) => this.#log.error({ err: error.message }, "queue stopped"));
    }
  }

  async stop(graceMs: number): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.pause(true)));
    const finished = Promise.allSettled(this.#running);
    const timer = setTimeout(() => this.#stopping.abort(new Stopping()), graceMs);
    await finished;
    clearTimeout(timer);
    await Promise.all(this.#workers.map((worker) => worker.close()));
  }

  #warn(err: string): void {
    const now = performance.now();
    for (const [text, at] of this.#warned) if (now - at > REPEAT_MS) this.#warned.delete(text);
    if (this.#warned.has(err)) return;
    this.#warned.set(err, now);
    this.#log.warn({ err }, "queue");
  }

  async #process(job: Job<Payload>, token: string | undefined): Promise<void> {
    const work = this.#take(job);
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
}

/**
 * The queues' windows: which shards are in Redis, and which go there next. A queue holds as many as its workers can take up
 * within a moment, whatever the jobs' sizes; what is handed out, and to which job its turn comes, round-robin.ts says.
 */
import { faultPoint } from "@capfleet/shared/faults";
import type { Logger } from "@capfleet/shared/log";
import {
  FEW_EVENTS,
  parseShardJobId,
  redisPrefix,
  shardJobId,
  type WorkPayload,
  workQueue,
} from "@capfleet/shared/queues";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import { DeficitRoundRobin } from "./round-robin.ts";
import type { JobTracker } from "./tracker.ts";

const MIN_WINDOW = 8;
const BULK = 500;

/** The shards of one queue that are in Redis, by job. */
export interface Outstanding {
  count: number;
  waiting: { id: string; job: string }[];
  byJob: Map<string, Set<number>>;
}

export class Windows {
  readonly #redis: Redis;
  readonly #log: Logger;
  readonly #queues = new Map<string, Queue<WorkPayload>>();
  readonly #robins = new Map<string, DeficitRoundRobin>();

  constructor(redis: Redis, log: Logger) {
    this.#redis = redis;
    this.#log = log;
  }

  /** `engines`: the queue's; see `engineSet`. */
  async outstanding(engines: string): Promise<Outstanding> {
    const queue = this.#queue(engines);
    const lists = await Promise.all(
      ["wait", "paused", "active"].map((list) => this.#redis.lrange(queue.toKey(list), 0, -1)),
    );
    const found: Outstanding = { count: 0, waiting: [], byJob: new Map() };
    for (const [i, ids] of lists.entries()) {
      for (const id of ids) {
        const parsed = parseShardJobId(id);
        if (!parsed) continue;
        found.count += 1;
        if (i < 2) found.waiting.push({ id, job: parsed.job });
        const shards = found.byJob.get(parsed.job) ?? new Set();
        found.byJob.set(parsed.job, shards.add(parsed.shard));
      }
    }
    return found;
  }

  /** Waiting shards are taken back; a worker that has one in work finishes or drops it by itself. */
  async withdraw(tracker: JobTracker, here: Outstanding): Promise<void> {
    const queue = this.#queue(tracker.engines);
    for (const { id, job } of here.waiting) {
      if (job !== tracker.id) continue;
      await queue.remove(id);
      faultPoint("reconciler.withdrawn", tracker.id);
    }
  }

  /** Hands out shards of the queue's jobs until its window is full: twice what the live workers have slots for. */
  async fill(engines: string, trackers: readonly JobTracker[], here: Outstanding, slots: number): Promise<void> {
    const room = Math.max(MIN_WINDOW, 2 * slots) - here.count;
    if (room <= 0) return;
    const now = performance.now();
    const next = new Map<string, { tracker: JobTracker; shards: number[] }>();
    for (const tracker of trackers) {
      const { state, fatal } = tracker;
      if (state.intent !== "run" || state.ended || fatal) continue;
      // One more than there is room for: a job that has just that much must not look as if it had nothing left.
      const shards = tracker.next(room + 1, here.byJob.get(tracker.id) ?? new Set(), now);
      if (shards.length > 0) next.set(tracker.id, { tracker, shards });
    }
    const runnable = [...next.values()].map(({ tracker, shards }) => tracker.runnable(shards.length));
    const work = [...this.#robin(engines).share(runnable, room)].flatMap(([id, count]) => {
      const { tracker, shards } = next.get(id)!;
      return shards.slice(0, count).map((shard) => entryOf(tracker, shard));
    });
    if (work.length > 0) faultPoint("reconciler.fill.before");
    for (let at = 0; at < work.length; at += BULK) {
      await this.#queue(engines).addBulk(work.slice(at, at + BULK));
      faultPoint("reconciler.fill.after");
    }
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#queues.values()].map((queue) => queue.close()));
  }

  #robin(engines: string): DeficitRoundRobin {
    const robin = this.#robins.get(engines) ?? new DeficitRoundRobin();
    this.#robins.set(engines, robin);
    return robin;
  }

  #queue(engines: string): Queue<WorkPayload> {
    const known = this.#queues.get(engines);
    if (known) return known;
    const queue = new Queue<WorkPayload>(workQueue(engines), {
      connection: this.#redis,
      prefix: redisPrefix(),
      streams: FEW_EVENTS,
    });
    queue.on("error", (error) => this.#log.warn({ err: error.message }, "queue"));
    this.#queues.set(engines, queue);
    return queue;
  }
}

function entryOf({ id, state }: JobTracker, shard: number) {
  const data: WorkPayload = { v: 2, job: id, shard, out: state.out, retries: state.retries };
  // Kept jobs would silently swallow a second add of the same id.
  return { name: "shard", data, opts: { jobId: shardJobId(id, shard), removeOnComplete: true, removeOnFail: true } };
}

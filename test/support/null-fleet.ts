/**
 * Dispatch as it is, with an engine that does nothing: the real reconciler, planner, Redis, store and the worker's own consumer
 * of shards; only labelling is given by whoever asks. For what has to be known of dispatch itself.
 */
import { createWriteStream } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { EngineRef, JobState, Lane } from "@capfleet/shared/contract";
import { taskSpecSchema } from "@capfleet/shared/contract";
import { createLog } from "@capfleet/shared/log";
import { connectRedis, keys, type Presence } from "@capfleet/shared/queues";
import type { Stores } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { createJob } from "../../packages/producer/src/jobs/create.ts";
import { JobStates } from "../../packages/producer/src/jobs/states.ts";
import { Reconciler } from "../../packages/producer/src/reconcile/reconciler.ts";
import { Consumer } from "../../packages/worker/src/dispatch/consumer.ts";
import { Heart } from "../../packages/worker/src/dispatch/heart.ts";
import { Intents } from "../../packages/worker/src/pipeline/intent.ts";
import type { ShardContext } from "../../packages/worker/src/pipeline/shard.ts";

export const NULL_ENGINE: EngineRef = { model: "null", digest: "null", checkpoint: "null", precision: "fp32" };

const log = createLog("null", "silent");

export interface Place {
  stores: Stores;
  /** The state root. */
  state: string;
  redisUrl: string;
}

/** What a worker does with a record; by default nothing. */
export type Label = ShardContext["label"];
const NOTHING: Label = async () => ({
  caption: "a caption of the usual length, as a model would write it",
  score: -0.5,
});

export class NullWorker {
  readonly consumer: Consumer;
  readonly #redis: Redis;
  readonly #heart: Heart;

  constructor(id: string, slots: number, { stores, state, redisUrl }: Place, label = NOTHING) {
    this.#redis = connectRedis(redisUrl, "patient");
    const context: ShardContext = {
      ...{ stores, label, intents: new Intents(stores.at(state)) },
      admit: (work) => work(),
      fetch: async () => {},
    };
    const enter = () => {
      throw new Error("no worker has died here");
    };
    const machine = { pricePerHour: null, device: "cpu", cpu: "none" };
    const parts = { redis: this.#redis, context, isolation: { enter }, machine, log };
    this.consumer = new Consumer([NULL_ENGINE], slots, parts);
    const presence = (): Presence => ({
      ...{ id, host: "null", pid: process.pid, version: "0", engines: [NULL_ENGINE], slots, pricePerHour: null },
      inFlight: [...this.consumer.inFlight.values()].map(({ job, shard, rows, failed }) => ({
        job,
        shard,
        rows,
        failed,
      })),
    });
    this.#heart = new Heart(this.#redis, presence, log);
  }

  async start(): Promise<void> {
    await this.#heart.start();
    this.consumer.start();
  }

  async stop(): Promise<void> {
    await this.consumer.stop(0);
    await this.#heart.stop();
    this.#redis.disconnect();
  }
}

/** A reconciler in this process; `stop` ends it. */
export function nullReconciler({ stores, state, redisUrl }: Place): { stop(): Promise<void> } {
  const stop = new AbortController();
  const states = new JobStates(stores.at(state));
  const options = { stores, states, redisUrl, log, isMine: () => true, scheduler: null };
  const ended = new Reconciler(options).run(stop.signal);
  return {
    stop: async () => {
      stop.abort();
      await ended;
    },
  };
}

export interface NullJob {
  records: number;
  shardSize: number;
  lane?: Lane;
  /** Files beside each other: the manifest, and the output's folder. */
  path: string;
}

/** Made as `capfleet submit` does it, of a manifest of so many lines. */
export async function submitNull(
  { records, shardSize, lane = "normal", path }: NullJob,
  { stores, state, redisUrl }: Place,
): Promise<JobState> {
  const lines = function* () {
    for (let n = 0; n < records; n++)
      yield `${JSON.stringify({ id: `photo-${n}`, image: `s3://photos/2026/${n % 1_000}/photo-${n}.jpg` })}\n`;
  };
  await pipeline(Readable.from(lines()), createWriteStream(`${path}.jsonl`));
  const request = {
    ...{ task: taskSpecSchema.parse({ name: "caption", decoding: {} }), input: `${path}.jsonl`, output: path },
    ...{ columns: {}, limit: null, shardSize, format: "jsonl" as const, lane, maxErrorRate: 0.5, readable: null },
    ...{ runner: "fleet" as const, incremental: false },
  };
  const model = { ref: NULL_ENGINE, folder: null, tasks: ["caption" as const], maxNewTokens: 20 };
  const created = await createJob(request, [model], stores, new JobStates(stores.at(state)));
  const redis = connectRedis(redisUrl, "hasty");
  await redis.publish(keys.wake(), created.file.id);
  redis.disconnect();
  return created.state;
}

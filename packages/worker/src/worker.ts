/** The worker process: its models compiled and loaded, registered, beating, and taking shards until it is told to stop. */
import { randomUUID } from "node:crypto";
import { cpus, hostname } from "node:os";
import { type Config, readConfig } from "@capfleet/shared/config";
import { CAPFLEET_VERSION, CapfleetError, type Precision } from "@capfleet/shared/contract";
import { createLog, type Logger } from "@capfleet/shared/log";
import { choosePrecision, findLocalModel, type Model, parseDevice, registerModel } from "@capfleet/shared/models";
import { checkRedis, connectRedis, type Presence } from "@capfleet/shared/queues";
import { type Stores, storesFromEnv } from "@capfleet/shared/storage";
import { Consumer } from "./dispatch/consumer.ts";
import { Heart } from "./dispatch/heart.ts";
import { InferConsumer } from "./dispatch/infer.ts";
import { podOf, tellDeletionCost } from "./dispatch/pod.ts";
import { EngineHost } from "./engine/host.ts";
import { Isolation } from "./isolation/isolation.ts";
import { prepareEngine } from "./models/prepare.ts";
import { Intents } from "./pipeline/intent.ts";
import { Labeler } from "./pipeline/labeler.ts";
import type { ShardContext } from "./pipeline/shard.ts";

/** Of what one record may take alone, a whole batch may take so much before its engine is taken to hang. */
const BATCH_RECORDS = 4;

export interface WorkerOptions {
  /** Bundled names, folders, s3:// prefixes or hub ids. */
  models: string[];
  /** By default what suits the device. */
  precision?: Precision;
  /** `cpu`, `cuda` or `cuda:N`. */
  device: string;
  /** Shards in work at once. */
  slots: number;
  /** Threads that inference may use. */
  threads: number;
}

/**
 * Runs until `stop` is aborted; throws where it can't start or can't go on. `labelled` is called once, with the first
 * row: graphs are loaded when they are first asked for, so it is only then that the model is known to fit.
 */
export async function runWorker(options: WorkerOptions, stop: AbortSignal, labelled: () => void): Promise<void> {
  const config = readConfig();
  const log = createLog("worker");
  if (!config.redisUrl) throw new CapfleetError("REDIS_MISSING", "CAPFLEET_REDIS_URL is not set");
  await checkRedis(config.redisUrl);
  const stores = storesFromEnv();
  const state = stores.at(config.state);

  // A download or a compilation may take minutes; what it has got so far is kept.
  const loaded = await Promise.race([loadModels(options, config, stores, log), aborted(stop)]);
  if (!loaded) return;
  const { models, host, engine } = loaded;
  const batchSeconds = BATCH_RECORDS * config.maxRecordSeconds;
  void host.hangs(batchSeconds * 1_000).then(() => dieHanging(log, batchSeconds));
  for (const model of models) await registerModel(model, state);

  const redis = connectRedis(config.redisUrl, "patient");
  const labeler = new Labeler(host, stores, config);
  const isolation = new Isolation(labeler, {
    engine,
    limits: config,
    recordSeconds: config.maxRecordSeconds,
    log,
  });
  let isFirst = true;
  const telling =
    (label: ShardContext["label"]): ShardContext["label"] =>
    async (...record) => {
      const fields = await label(...record);
      if (isFirst) labelled();
      isFirst = false;
      return fields;
    };
  const label = telling((...record) => labeler.label(...record));
  const fetch: ShardContext["fetch"] = (record, signal, keep) => labeler.fetch(record, signal, keep);
  const context = { stores, intents: new Intents(state), admit: labeler.admit, label, fetch };
  const isolated = {
    enter: () => {
      const place = isolation.enter();
      return { ...place, label: telling(place.label) };
    },
  };
  const engines = models.map(({ ref }) => ref);
  const { pricePerHour } = config;
  const machine = { pricePerHour, device: parseDevice(options.device).provider, cpu: cpus()[0]?.model.trim() ?? "" };
  const consumer = new Consumer(engines, options.slots, { redis, context, isolation: isolated, machine, log });
  const interactive = new InferConsumer(engines, redis, labeler, log);
  const id = `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`;
  const presence = (): Presence => ({
    id,
    host: hostname(),
    pid: process.pid,
    version: CAPFLEET_VERSION,
    engines,
    slots: options.slots,
    pricePerHour,
    inFlight: [...consumer.inFlight.values()].map(({ job, shard, rows, failed }) => ({ job, shard, rows, failed })),
  });
  const pod = podOf(process.env);
  const heart = new Heart(redis, presence, log);
  try {
    await heart.start();
    consumer.start();
    interactive.start();
    if (pod) void tellDeletionCost(pod, { rows: () => consumer.rowsInHand, log, signal: stop });
    log.info({ id, models: engines.map(({ model, digest }) => `${model} ${digest}`), slots: options.slots }, "ready");
    await Promise.race([aborted(stop), host.ended]);
    const { graceSeconds } = config;
    log.info({ graceSeconds, shards: consumer.inFlight.size, rows: consumer.rowsInHand }, "stopping");
    const [givenBack] = await Promise.all([
      consumer.stop(graceSeconds * 1_000),
      interactive.stop(graceSeconds * 1_000),
    ]);
    log.info(givenBack, "stopped; shards given back, and their rows that were labelled and will be again");
  } finally {
    await heart.stop();
    redis.disconnect();
    await host.close();
    stores.close();
  }
}

/** Fetched, compiled or pulled, and loaded, one after the other: each may take a disk's or a network's whole speed. */
async function loadModels(options: WorkerOptions, config: Config, stores: Stores, log: Logger) {
  const { threads, device } = options;
  const precision = choosePrecision(device, options.precision);
  const note = (text: string) => log.warn(text);
  const models: Model[] = [];
  const folders: string[] = [];
  for (const name of options.models) {
    const started = performance.now();
    const model = await findLocalModel(name, precision, config, { stores, note });
    const { ref, tasks } = model;
    if (tasks.length === 0) throw new CapfleetError("TASK_UNSUPPORTED", `${ref.model} has no task that capfleet runs`);
    const { folder, how } = await prepareEngine(model, config, stores, { note });
    const ms = Math.round(performance.now() - started);
    log.info({ model: ref.model, digest: ref.digest, precision, how, ms }, "engine ready");
    models.push(model);
    folders.push(folder);
  }
  const engine = { folders, threads, device };
  return { models, host: await EngineHost.start(engine), engine };
}

/**
 * Native code that hangs ends with the process alone, and not by `process.exit`, which waits for threads. To its shards it
 * is a death like any other: their locks run out, and one that has cost two workers is done in a process of its own.
 */
function dieHanging(log: Logger, seconds: number): void {
  log.error(
    { code: "ENGINE_FAILED" },
    `no batch has been answered for ${seconds} s: the engine hangs, and the worker ends`,
  );
  process.kill(process.pid, "SIGKILL");
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

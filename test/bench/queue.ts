/**
 * Dispatch alone: workers with an engine that does nothing, a real producer, Redis and store (a local folder). What a shard costs
 * Redis, how many images and shards a second go through so many workers and processes, what a round of the reconciler takes, and
 * what a job's size does to Redis. Also a real worker's time from its start to its first result.
 */
import { type ChildProcess, fork } from "node:child_process";
import { loadavg } from "node:os";
import { join } from "node:path";
import { layout } from "@capfleet/shared/contract";
import { liveWorkers, readFigures, readProgress } from "@capfleet/shared/queues";
import { storesFromEnv } from "@capfleet/shared/storage";
import { type Place, submitNull } from "../support/null-fleet.ts";
import { until } from "../support/processes.ts";
import type { Figure } from "./bench.ts";
import { BenchFleet, pause, say } from "./fleet.ts";
import { cpuSeconds, type RedisMeter, readRedis } from "./meters.ts";
import type { NullWorkers } from "./queue-process.ts";

const FLEET = { workers: 200, processes: 4, slots: 2 };
const PROCESSES = [1, 2, 4, 8];
/** Jobs, and records of each. */
const JOBS = [
  [1, 10_000],
  [1, 1_000_000],
  [1, 10_000_000],
  [100, 1_000_000],
] as const;
const SHARD = 512;
/** What is measured of a run: the rest is start-up, and the end. */
const [FROM, TO] = [0.1, 0.9];
const STANDING_SECONDS = 10;

export async function queueFigures(): Promise<Figure[]> {
  const figures: Figure[] = [{ name: "load of the machine at the start", value: loadavg()[0]!, unit: "processes" }];
  const { workers, processes } = FLEET;
  const fleet = `${workers} workers in ${processes} processes`;
  figures.push(...(await drain(`${fleet}, shards of 1`, { ...FLEET, shards: 8_000, shardSize: 1 })));
  figures.push(...(await drain(`${fleet}, shards of ${SHARD}`, { ...FLEET, shards: 1_000, shardSize: SHARD })));
  figures.push(...(await standing(fleet)));
  for (const count of PROCESSES) {
    const run = { workers: count, processes: count, slots: 2, shards: 300, shardSize: SHARD };
    const [images] = await drain(`${count} worker processes, shards of ${SHARD}`, run);
    figures.push(images!);
  }
  const alone = { workers: 1, processes: 1, slots: 1, shards: 1_000, shardSize: 1 };
  const [, shards] = await drain("one worker, one slot", alone);
  figures.push({ name: "one worker, one slot: a shard of 1", value: 1_000 / shards!.value, unit: "ms" });
  for (const [jobs, records] of JOBS) figures.push(...(await stored(jobs, records)));
  figures.push(await firstResult());
  return figures;
}

interface Run {
  workers: number;
  processes: number;
  slots: number;
  shards: number;
  shardSize: number;
}

async function drain(name: string, run: Run): Promise<Figure[]> {
  say(name);
  await using fleet = await BenchFleet.start();
  const place = placeOf(fleet);
  const records = run.shards * run.shardSize;
  const { id } = await submitNull({ records, shardSize: run.shardSize, path: fleet.sandbox.path("job") }, place);
  const producer = fleet.producer();
  await until("the plan", async () => (await readProgress(fleet.redis, id))?.total === records, 600);
  const children = startWorkers(fleet, place, run);
  const pids = { producer: producer.pid, workers: children.map(({ pid }) => pid!) };
  const read = async () => ({
    at: performance.now() / 1_000,
    committed: (await readProgress(fleet.redis, id))?.committed ?? records,
    redis: await readRedis(fleet.redis),
    producer: cpuSeconds(pids.producer),
    workers: pids.workers.map(cpuSeconds).reduce((a, b) => a + b, 0),
  });
  const past = (share: number) =>
    until(
      `${share * 100} %`,
      async () => {
        const reading = await read();
        return reading.committed >= share * records ? reading : null;
      },
      600,
    );
  const [first, last] = [await past(FROM), await past(TO)];
  const rounds = (await readFigures(fleet.redis))?.roundSeconds ?? Number.NaN;
  const shards = (last.committed - first.committed) / run.shardSize;
  const seconds = last.at - first.at;
  const of = (meter: keyof RedisMeter) => last.redis[meter] - first.redis[meter];
  return [
    { name: `${name}: images`, value: (shards * run.shardSize) / seconds, unit: "images/s" },
    { name: `${name}: shards`, value: shards / seconds, unit: "shards/s" },
    { name: `${name}: Redis commands`, value: of("commands") / shards, unit: "a shard" },
    { name: `${name}: Redis CPU`, value: (of("cpuSeconds") / shards) * 1_000, unit: "ms a shard" },
    { name: `${name}: Redis network`, value: of("networkBytes") / shards / 1_024, unit: "KiB a shard" },
    { name: `${name}: Redis data`, value: last.redis.dataBytes / 1_024, unit: "KiB" },
    { name: `${name}: producer CPU`, value: ((last.producer - first.producer) / shards) * 1_000, unit: "ms a shard" },
    { name: `${name}: workers' CPU`, value: ((last.workers - first.workers) / shards) * 1_000, unit: "ms a shard" },
    { name: `${name}: CPU of Redis`, value: of("cpuSeconds") / seconds, unit: "cores" },
    { name: `${name}: CPU of the producer`, value: (last.producer - first.producer) / seconds, unit: "cores" },
    { name: `${name}: CPU of the workers`, value: (last.workers - first.workers) / seconds, unit: "cores" },
    { name: `${name}: the reconciler's last round`, value: rounds * 1_000, unit: "ms" },
  ];
}

/** What a fleet costs Redis and the producer that has nothing to do, and what its heartbeats take. */
async function standing(name: string): Promise<Figure[]> {
  say(`${name}, with nothing to do`);
  await using fleet = await BenchFleet.start();
  const place = placeOf(fleet);
  const producer = fleet.producer();
  startWorkers(fleet, place, FLEET);
  await until("all workers", async () => (await liveWorkers(fleet.redis)).length === FLEET.workers, 120);
  const read = async () => ({ redis: await readRedis(fleet.redis), producer: cpuSeconds(producer.pid) });
  const first = await read();
  await pause(STANDING_SECONDS * 1_000);
  const last = await read();
  const perSecond = (value: number) => value / STANDING_SECONDS;
  return [
    {
      name: `${name}, idle: Redis commands`,
      value: perSecond(last.redis.commands - first.redis.commands),
      unit: "a second",
    },
    {
      name: `${name}, idle: CPU of Redis`,
      value: perSecond(last.redis.cpuSeconds - first.redis.cpuSeconds),
      unit: "cores",
    },
    { name: `${name}, idle: CPU of the producer`, value: perSecond(last.producer - first.producer), unit: "cores" },
  ];
}

/** What Redis holds of jobs, and what a round takes, where no worker runs. Their plans are written here, and not by planning. */
async function stored(jobs: number, records: number): Promise<Figure[]> {
  const name = `${jobs} of ${records.toLocaleString("en-US")} records`;
  say(name);
  await using fleet = await BenchFleet.start();
  const empty = await readRedis(fleet.redis);
  const place = placeOf(fleet);
  const plan = { shards: Math.ceil(records / SHARD), records, seconds: 1 };
  const ids: string[] = [];
  for (let n = 0; n < jobs; n++) {
    const path = fleet.sandbox.path(`job-${n}`);
    const { id, out } = await submitNull({ records: 1, shardSize: SHARD, path }, place);
    await place.stores.at(out).put(layout.plan, JSON.stringify(plan));
    ids.push(id);
  }
  const producer = fleet.producer();
  for (const id of ids) {
    await until("its plan", async () => (await readProgress(fleet.redis, id))?.total === records);
  }
  await pause(2_000);
  const before = cpuSeconds(producer.pid);
  await pause(STANDING_SECONDS * 1_000);
  const cpu = (cpuSeconds(producer.pid) - before) / STANDING_SECONDS;
  const { dataBytes, keys } = await readRedis(fleet.redis);
  const rounds = (await readFigures(fleet.redis))!.roundSeconds;
  return [
    { name: `${name}: Redis data`, value: (dataBytes - empty.dataBytes) / 1_024, unit: "KiB" },
    { name: `${name}: Redis keys`, value: keys, unit: "keys" },
    { name: `${name}: the reconciler's round`, value: rounds * 1_000, unit: "ms" },
    { name: `${name}: CPU of the producer`, value: cpu, unit: "cores" },
  ];
}

/** Its engine is compiled before. */
async function firstResult(): Promise<Figure> {
  say("a real worker's first result");
  await using fleet = await BenchFleet.start();
  const images = join(import.meta.dirname, "../demo/images/");
  await fleet.submit(images, fleet.sandbox.path("warm"), "--limit", "16");
  fleet.producer();
  const warm = fleet.sandbox.worker(fleet.env);
  const done = async (id: string) => ((await readProgress(fleet.redis, id))?.committed ?? 0) > 0;
  const out = storesFromEnv({}).at(`${fleet.sandbox.path("warm")}/`);
  await until("an engine", async () => out.stat(layout.success));
  await warm.kill("SIGTERM");
  const id = await fleet.submit(images, fleet.sandbox.path("cold"), "--limit", "16", "--shard-size", "1");
  await until("the plan", async () => (await readProgress(fleet.redis, id))?.total === 16);
  const started = performance.now();
  fleet.sandbox.worker(fleet.env);
  await until("its first result", () => done(id));
  return {
    name: "a real worker, from its start to its first result",
    value: (performance.now() - started) / 1_000,
    unit: "s",
  };
}

function placeOf(fleet: BenchFleet): Place {
  const { CAPFLEET_STATE, CAPFLEET_REDIS_URL } = fleet.env;
  return { stores: storesFromEnv({}), state: `${CAPFLEET_STATE}/`, redisUrl: CAPFLEET_REDIS_URL! };
}

function startWorkers(
  fleet: BenchFleet,
  { state, redisUrl }: Place,
  run: Omit<Run, "shards" | "shardSize">,
): ChildProcess[] {
  const count = run.workers / run.processes;
  return Array.from({ length: run.processes }, (_, i) => {
    const given: NullWorkers = { first: i * count, count, slots: run.slots, state, redisUrl };
    const child = fork(join(import.meta.dirname, "queue-process.ts"), [JSON.stringify(given)], { env: fleet.env });
    fleet.sandbox.atEnd(async () => child.kill("SIGKILL"));
    return child;
  });
}

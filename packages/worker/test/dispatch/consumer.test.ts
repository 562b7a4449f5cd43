import { CapfleetError, type EngineRef, layout, stateLayout } from "@capfleet/shared/contract";
import { createLog } from "@capfleet/shared/log";
import {
  beginShard,
  connectRedis,
  keys,
  redisPrefix,
  shardJobId,
  takeReports,
  type WorkPayload,
  workQueue,
} from "@capfleet/shared/queues";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Sandbox, until } from "../../../../test/support/processes.ts";
import { Consumer } from "../../src/dispatch/consumer.ts";
import { Intents } from "../../src/pipeline/intent.ts";
import type { ShardContext } from "../../src/pipeline/shard.ts";

const engine: EngineRef = { model: "m", digest: "d", checkpoint: "c", precision: "fp32" };
const stores = storesFromEnv({});
const created = new Date(0).toISOString();

let sandbox: Sandbox;
let redis: Redis;
let queue: Queue<WorkPayload>;
let out: Store;
let consumer: Consumer;
/** In the isolated process. */
let places = 0;
let warnings: unknown[];

beforeEach(async () => {
  warnings = [];
  sandbox = await Sandbox.create();
  redis = connectRedis((await sandbox.redis()).url, "patient");
  queue = new Queue(workQueue(engine.digest), { connection: redis, prefix: redisPrefix() });
  out = stores.at(`${sandbox.path("out")}/`);
  const spec = {
    task: { name: "caption", decoding: {} },
    engines: [engine],
    input: { kind: "jsonl", uri: `file://${sandbox.path("list.jsonl")}` },
    limit: null,
    shardSize: null,
    lane: "normal",
  };
  await out.put(layout.job, JSON.stringify({ schema: 1, id: "job_1", capfleet: "0", created, fingerprint: "f", spec }));
  const state = { schema: 1, id: "job_1", out: out.uri, created, runner: "fleet", checkpoints: null };
  const wanted = { ...state, intent: "run", ended: null, reason: null };
  await stores.at(`${sandbox.path("state")}/`).put(stateLayout.job("job_1"), JSON.stringify(wanted));
  for (const shard of [0, 1]) {
    const record = { id: String(shard), image: `file:///${shard}.jpg` };
    const end = { records: 1, planned: shard + 1, cursor: { source: "prefix", after: "x" } };
    await out.put(layout.shard(shard), `${JSON.stringify(record)}\n${JSON.stringify(end)}\n`);
  }
});
afterEach(async () => {
  await consumer.stop(0);
  await queue.close();
  redis.disconnect();
  await sandbox.cleanUp();
});

/** `isolated`: labels the records of shards that have taken workers down. */
function consume(label: ShardContext["label"], isolated = label, engines = [engine], slots = 2): void {
  const intents = new Intents(stores.at(`${sandbox.path("state")}/`));
  const context: ShardContext = { stores, intents, admit: (work) => work(), label, fetch: async () => {} };
  const isolation = {
    enter: () => {
      places += 1;
      const leave = () => {
        places -= 1;
      };
      return { admit: context.admit, label: isolated, [Symbol.dispose]: leave };
    },
  };
  const machine = { pricePerHour: 1.5, device: "cpu", cpu: "a CPU" };
  const log = createLog("test", "silent");
  log.warn = (...said: unknown[]) => void warnings.push(said);
  consumer = new Consumer(engines, slots, { redis, context, isolation, machine, log });
}

const add = (shard: number, to = queue) =>
  to.add(
    "shard",
    { v: 2, job: "job_1", shard, out: out.uri, retries: 0 },
    {
      jobId: shardJobId("job_1", shard),
      removeOnComplete: true,
      removeOnFail: true,
    },
  );
/** As if the shard had been begun so often by workers that died. */
const died = async (times: number) => {
  for (let n = 0; n < times; n++) await beginShard(redis, "job_1", 0);
};
const counted = () => redis.hgetall(keys.deaths("job_1"));
const reports = () => takeReports(redis, "job_1");
const left = async (of = queue) =>
  (await of.getJobCounts("wait", "active", "failed", "completed")) as Record<string, number>;

test("shards are labelled, committed, reported and gone", async () => {
  consume(async () => ({ caption: "x", score: 0 }));
  for (const shard of [0, 1]) await add(shard);
  consumer.start();
  await until("both results", async () => (await out.stat(layout.result(0))) && (await out.stat(layout.result(1))));
  await until("an empty queue", async () => Object.values(await left()).every((n) => n === 0));
  const sums = expect.objectContaining({ rows: 1, failed: 0, warned: 0, errors: {} });
  const work = { rows: 1, seconds: expect.any(Number), pricePerHour: 1.5, device: "cpu", cpu: "a CPU" };
  expect((await reports()).sort((a, b) => a.shard - b.shard)).toEqual([
    { outcome: "committed", shard: 0, sums, work },
    { outcome: "committed", shard: 1, sums, work },
  ]);
  expect(await counted()).toEqual({});
});

test("a shard that has taken two workers down is done in a process of its own; one death is not enough", async () => {
  const how: string[] = [];
  consume(
    async ({ id }) => ({ caption: `worker ${id}`, score: how.push(`worker ${id}`) }),
    async ({ id }) => ({ caption: `isolated ${id}`, score: how.push(`isolated ${id}, ${places} place`) }),
  );
  await died(2);
  await beginShard(redis, "job_1", 1);
  for (const shard of [0, 1]) await add(shard);
  consumer.start();
  await until("both results", async () => (await out.stat(layout.result(0))) && (await out.stat(layout.result(1))));
  await until("an empty queue", async () => Object.values(await left()).every((n) => n === 0));
  expect(how.sort()).toEqual(["isolated 0, 1 place", "worker 1"]);
  expect(places).toBe(0);
  expect(await counted()).toEqual({});
});

test("a shard is counted before it is begun; a shard error is no death", async () => {
  const seen: object[] = [];
  consume(async () => {
    seen.push(await counted());
    throw new CapfleetError("STORE_UNAVAILABLE", "away");
  });
  await died(1);
  await add(0);
  consumer.start();
  expect(await until("its report", async () => (await reports())[0])).toMatchObject({ code: "STORE_UNAVAILABLE" });
  expect(seen).toEqual([{ 0: "2" }]);
  expect(await counted()).toEqual({ 0: "1" });
});

test("a shard that takes workers down with a process of its own, too, is an error, and begun once more after it", async () => {
  let begun = 0;
  consume(async () => ({ caption: "x", score: begun++ }));
  await died(4);
  await add(0);
  consumer.start();
  const found = await until("its report", async () => (await reports())[0]);
  expect(found).toMatchObject({ outcome: "failed", shard: 0, code: "WORKER_LOST" });
  expect(begun).toBe(0);
  expect(await counted()).toEqual({ 0: "3" });
  await add(0);
  await until("its result", () => out.stat(layout.result(0)));
});

test("stopping: a shard that hangs goes back to waiting at once when its grace is over", async () => {
  let begun = 0;
  consume(() => {
    begun += 1;
    return new Promise(() => {});
  });
  await add(0);
  consumer.start();
  await until("the shard to begin", () => begun > 0);
  await consumer.stop(10);
  expect(await left()).toMatchObject({ wait: 1, active: 0, failed: 0 });
  expect(await counted()).toEqual({});
  expect(await reports()).toEqual([]);
  expect(await out.stat(layout.result(0))).toBeNull();
});

test("stopping: a shard that waits for a slot goes back at once, one in work when its grace is over, and its rows are told", async () => {
  const other = new Queue<WorkPayload>(workQueue("e"), { connection: redis, prefix: redisPrefix() });
  const records = ["a", "b"].map((id) => JSON.stringify({ id, image: `file:///${id}.jpg` }));
  const end = { records: 2, planned: 2, cursor: { source: "prefix", after: "x" } };
  await out.put(layout.shard(0), `${records.join("\n")}\n${JSON.stringify(end)}\n`);
  const label: ShardContext["label"] = ({ id }) =>
    id === "a" ? Promise.resolve({ caption: "x", score: 0 }) : new Promise(() => {});
  consume(label, label, [engine, { ...engine, digest: "e" }], 1);
  await add(0);
  consumer.start();
  await until("its first row", () => consumer.rowsInHand === 1);
  await add(1, other);
  await until("the other to be taken", async () => (await left(other)).active === 1);

  const stopped = consumer.stop(600_000);
  await until("the other to be back", async () => (await left(other)).wait === 1);
  expect(await left()).toMatchObject({ wait: 0, active: 1 });
  await consumer.stop(0);
  expect(await stopped).toEqual({ shards: 1, rows: 1 });
  expect(await left()).toMatchObject({ wait: 1, active: 0 });
  await other.close();
});

test("a shard that comes again while it is in work here is the same work", async () => {
  let begun = 0;
  const go = Promise.withResolvers<void>();
  consume(async () => {
    begun += 1;
    await go.promise;
    return { caption: "x", score: 0 };
  });
  await add(0);
  consumer.start();
  await until("the shard to begin", () => begun > 0);
  // Redis has been emptied, and the reconciler hands the shard out again.
  await redis.flushall();
  await add(0);
  await until("it to be taken again", async () => (await left()).active === 1);
  // Nor does it count below nothing.
  expect(await counted()).toEqual({});
  go.resolve();
  await until("an empty queue", async () => Object.values(await left()).every((n) => n === 0));
  expect(begun).toBe(1);
  expect(await reports()).toHaveLength(1);
});

test("a shard in the words of another version is left alone: the reconciler hands it out again, until a worker knows them", async () => {
  const labelled: string[] = [];
  consume(async ({ id }) => {
    labelled.push(id);
    return { caption: "x", score: 0 };
  });
  const other = { v: 3, job: "job_1", shard: 0, out: out.uri, retries: 0 } as unknown as WorkPayload;
  await queue.add("shard", other, { jobId: shardJobId("job_1", 0), removeOnComplete: true, removeOnFail: true });
  await add(1);
  consumer.start();
  await until("an empty queue", async () => Object.values(await left()).every((n) => n === 0));
  expect(labelled).toEqual(["1"]);
  expect(await counted()).toEqual({});
  expect((await reports()).map(({ outcome, shard }) => [outcome, shard])).toEqual([["committed", 1]]);
});

test("a Redis that is out of memory fills no log, and the shards go on when it has some", async () => {
  consume(async () => ({ caption: "x", score: 0 }));
  await add(0);
  await redis.config("SET", "maxmemory", "1");
  consumer.start();
  const refused = async () => Number(/errorstat_OOM:count=(\d+)/.exec(await redis.info("errorstats"))?.[1] ?? 0);
  await until("many refusals", async () => (await refused()) > 100);
  expect(warnings.length).toBeGreaterThan(0);
  expect(warnings.length).toBeLessThan(10);
  await expect(beginShard(redis, "job_1", 0)).rejects.toMatchObject({
    code: "REDIS_REFUSED",
    message: expect.stringMatching(/^Redis says: OOM /),
  });
  await redis.config("SET", "maxmemory", "0");
  await until("the result", () => out.stat(layout.result(0)));
});

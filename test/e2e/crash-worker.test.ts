/**
 * SIGKILL of a worker at each of its fault points, one worker after the other, each of which goes on with what the one before
 * it has left. The producer is this process.
 */
import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { type JobFile, layout } from "@capfleet/shared/contract";
import type { FaultPoint } from "@capfleet/shared/faults";
import { findModel, type Model } from "@capfleet/shared/models";
import { beat, connectRedis, HEARTBEAT_MS, keys, redisPrefix, workQueue } from "@capfleet/shared/queues";
import type { Store } from "@capfleet/shared/storage";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Context } from "../../packages/producer/src/cli/context.ts";
import { InferClient } from "../../packages/producer/src/infer/client.ts";
import { inferRequestOf } from "../../packages/producer/src/infer/request.ts";
import { askedJob } from "../../packages/producer/src/jobs/asked-job.ts";
import { createJob } from "../../packages/producer/src/jobs/create.ts";
import { backends } from "../../packages/shared/test/storage/backends.ts";
import { contextOf, diesAt, leftovers, orphans, POINTS, pictures, producing } from "../support/crashes.ts";
import { Sandbox, until } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";

vi.setConfig({ testTimeout: 400_000 });

const PER_SHARD = 2;
const shardPoints = POINTS.filter((point) => point.startsWith("worker.") && !point.startsWith("worker.request."));
/** Where rows are in the store by then, and where the shard is in hand: before and after that, dying costs nothing. */
const COMMITTED: FaultPoint[] = ["worker.commit.after", "worker.report.after"];
const NOT_COUNTED: FaultPoint[] = ["worker.shard.taken", "worker.report.after"];

let sandbox: Sandbox;
let redis: Redis;
let env: NodeJS.ProcessEnv;
let context: Context;
let model: Model;
let captions: [name: string, caption: string][];

beforeEach(async () => {
  sandbox = await Sandbox.create();
  const server = await sandbox.redis();
  env = sandbox.env({ CAPFLEET_REDIS_URL: server.url });
  redis = connectRedis(server.url, "patient");
  captions = [...(await pictures(sandbox.path("in"), 3))];
});
afterEach(async () => {
  redis.disconnect();
  await sandbox.cleanUp();
});

/** A job of so many shards, a producer for it, and room in its queue for all of them. */
async function begin(out: Store, shards: number): Promise<{ file: JobFile; end: () => Promise<void> }> {
  context = contextOf(env);
  model = await findModel("demo-caption", "int8", context.state, context.config, { stores: context.stores });
  const record = (n: number) => JSON.stringify({ id: String(n), image: captions[n % captions.length]![0] });
  const list = sandbox.path("in/list.jsonl");
  await writeFile(list, Array.from({ length: shards * PER_SHARD }, (_, n) => record(n)).join("\n"));
  const options = { out: out.uri, shardSize: PER_SHARD, format: "parquet" } as const;
  const { request } = askedJob("caption", list, options, "fleet");
  const { file } = await createJob(request, [model], context.stores, context.states);
  // What dead workers had in hand stays in the window until it is found stalled.
  const many = {
    pricePerHour: null,
    id: "many slots",
    host: "",
    pid: 0,
    version: "",
    engines: [model.ref],
    slots: shards,
    inFlight: [],
  };
  await beat(redis, many);
  const beating = setInterval(() => beat(redis, many), HEARTBEAT_MS);
  const stop = producing(context);
  const end = async () => {
    clearInterval(beating);
    await stop();
  };
  sandbox.atEnd(end);
  return { file, end };
}

/** Starts a worker that dies at a point; returns the shard, or the record, that it died with. */
const dies = (point: FaultPoint) =>
  diesAt(point, sandbox.worker({ ...env, CAPFLEET_FAULTS: `${point}=kill` }, "--slots", "1"));

/** The shard that a worker died with. */
async function shardLostAt(point: FaultPoint): Promise<number> {
  const about = Number(await dies(point));
  const isRecord = /^worker\.(image|decode|infer)/.test(point);
  return isRecord ? Math.floor(about / PER_SHARD) : about;
}

/** Nothing is left but the rows, each once and right. */
async function expectGood(out: Store, file: JobFile, shards: number): Promise<void> {
  const { rows } = await expectWhole(out, shards * PER_SHARD);
  expect(rows.map(({ id, caption }) => [id, caption])).toEqual(
    rows.map((_, n) => [String(n), captions[n % captions.length]![1]]),
  );
  expect(await orphans(out, rows)).toEqual([]);
  await until("the last shard to leave Redis", async () => (await leftovers(redis, file.id)).length === 0);
  const queue = new Queue(workQueue(file.spec.engines[0]!.digest), { connection: redis, prefix: redisPrefix() });
  const counts = await queue.getJobCounts("wait", "active", "delayed", "failed", "completed", "prioritized");
  expect(Object.values(counts).every((count) => count === 0)).toBe(true);
  await queue.close();
}

test("killed at each step of a shard and of a request: every row once and right, every request answered", async () => {
  const shards = shardPoints.length + 6;
  const out = contextOf(env).stores.at(`${sandbox.path("out")}/`);
  const { file, end } = await begin(out, shards);
  for (const point of shardPoints) {
    const shard = await shardLostAt(point);
    const rows = await out.stat(layout.result(shard));
    expect(rows !== null, `${point}: rows of shard ${shard}`).toBe(COMMITTED.includes(point));
    const deaths = await redis.hgetall(keys.deaths(file.id));
    expect(deaths, point).toEqual(NOT_COUNTED.includes(point) ? {} : { [shard]: "1" });
    // Forgotten, so that no shard comes to its second death: e2e/poison.test.ts is about those.
    await redis.del(keys.deaths(file.id));
  }

  const client = new InferClient(redis);
  const { task } = file.spec;
  const ask = (id: string) => {
    const [name] = captions[0]!;
    const image = `file://${sandbox.path("in")}/${name}`;
    return client.infer(inferRequestOf(task, [model], { id, image }, false), null, { timeoutMs: 300_000 });
  };
  // A request that kills what takes it is answered after two deaths; one that is answered stays so.
  const answered = ask("answered");
  await dies("worker.request.answered");
  expect(await answered).toMatchObject({ caption: captions[0]![1] });
  const killer = ask("killer").catch((thrown: unknown) => thrown);
  for (let death = 0; death < 2; death++) expect(await dies("worker.request.taken")).toBe("killer");
  sandbox.worker(env);
  expect(await killer).toMatchObject({ code: "WORKER_CRASHED" });
  await client.close();

  await until("the job to finish", () => out.stat(layout.success), 300);
  await until("its state", async () => (await context.states.find(file.id))!.ended);
  await end();
  await expectGood(out, file, shards);
});

const s3 = backends().find(({ name }) => name === "S3")!;
afterAll(() => s3.close());

describe.skipIf(s3.isMissing)("on S3", () => {
  test("killed around the commit: one result stands, and no data file that nothing names", async () => {
    const { store, config } = await s3.open();
    env = { ...env, CAPFLEET_STORES: config };
    const out = contextOf(env).stores.at(`${store.uri}${randomUUID()}/`);
    const shards = 4;
    const { file, end } = await begin(out, shards);
    for (const point of ["worker.data.written", "worker.commit.before", "worker.commit.after"] as const) {
      const shard = await shardLostAt(point);
      expect((await out.stat(layout.result(shard))) !== null).toBe(point === "worker.commit.after");
    }
    // A file of each of them, two of which nothing names.
    const files = await Array.fromAsync(out.list({ prefix: layout.data }));
    expect(files.length).toBeGreaterThanOrEqual(3);
    sandbox.worker(env);
    await until("the job to finish", () => out.stat(layout.success), 300);
    await until("its state", async () => (await context.states.find(file.id))!.ended);
    await end();
    await expectGood(out, file, shards);
    expect(await Array.fromAsync(out.list({ prefix: layout.data }))).toHaveLength(shards);
  });
});

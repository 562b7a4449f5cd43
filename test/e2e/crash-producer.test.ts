/**
 * SIGKILL of a producer at each of its fault points, while it starts, plans, hands out and ends a scheduled incremental
 * run: all that a producer does. Another one goes on, in this process; the worker lives.
 */
import { datasetLayout, layout } from "@capfleet/shared/contract";
import { readIndex } from "@capfleet/shared/datasets";
import { findModel } from "@capfleet/shared/models";
import { connectRedis, keys, redisPrefix, takeReports, workQueue } from "@capfleet/shared/queues";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { Context } from "../../packages/producer/src/cli/context.ts";
import { listRuns, readRoot } from "../../packages/producer/src/incremental/root.ts";
import { viewRows } from "../../packages/producer/src/incremental/view.ts";
import { askedJob } from "../../packages/producer/src/jobs/asked-job.ts";
import { createJob } from "../../packages/producer/src/jobs/create.ts";
import { createSchedule } from "../../packages/producer/src/schedules/create.ts";
import { ask } from "../../packages/producer/src/schedules/run.ts";
import { Schedules } from "../../packages/producer/src/schedules/schedule.ts";
import { contextOf, diesAt, leftovers, orphans, POINTS, pictures, producing } from "../support/crashes.ts";
import { type Running, Sandbox, until } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";

vi.setConfig({ testTimeout: 300_000 });

/** The one that a run does not pass has a test of its own. */
const points = POINTS.filter((point) => !point.startsWith("worker.") && point !== "reconciler.withdrawn");

let sandbox: Sandbox;
let redis: Redis;
let env: NodeJS.ProcessEnv;
let context: Context;
let captions: Map<string, string>;
let worker: Running | undefined;

beforeAll(async () => {
  sandbox = await Sandbox.create();
  const server = await sandbox.redis();
  env = sandbox.env({ CAPFLEET_REDIS_URL: server.url });
  redis = connectRedis(server.url, "patient");
  context = contextOf(env);
  captions = await pictures(sandbox.path("in"), 3);
});
afterAll(async () => {
  redis.disconnect();
  await sandbox.cleanUp();
});

const producerDyingAt = (point: (typeof POINTS)[number]) =>
  sandbox.producerWithoutApi({ ...env, CAPFLEET_FAULTS: `${point}=kill` });

/** One worker for all tests, from the first that needs it on. */
const work = () => {
  if (!worker) worker = sandbox.worker(env);
};

const find = (name: string) => findModel(name, "int8", context.state, context.config, { stores: context.stores });

/** Another producer, until `done`. It need not wait for the dead one's lease to run out. */
async function goOn(done: () => Promise<unknown>): Promise<void> {
  await redis.del(keys.lease("reconciler"));
  const stop = producing(context);
  try {
    await done();
  } finally {
    await stop();
  }
}

test("killed as it withdraws the shards of a job that is paused: the others are withdrawn, and it goes on when resumed", async () => {
  const { stores, states } = context;
  const model = await find("demo-caption");
  const options = { out: sandbox.path("paused"), shardSize: 1 };
  const { request } = askedJob("caption", sandbox.path("in"), options, "fleet");
  const { file, out } = await createJob(request, [model], stores, states);
  const queue = new Queue(workQueue(model.ref.digest), { connection: redis, prefix: redisPrefix() });
  const producer = producerDyingAt("reconciler.withdrawn");
  await until("the shards to be handed out", async () => (await queue.getWaitingCount()) === 3);
  await states.want(file.id, "paused");
  expect(await diesAt("reconciler.withdrawn", producer)).toBe(file.id);
  expect(await queue.getWaitingCount()).toBe(2);
  await goOn(() => until("the others to be withdrawn", async () => (await queue.getWaitingCount()) === 0));
  await states.want(file.id, "run");
  work();
  await goOn(() => until("the job to finish", async () => (await states.find(file.id))!.ended, 120));
  await expectWhole(stores.at(out), 3);
  await until("its last shard to leave Redis", async () => (await leftovers(redis, file.id)).length === 0);
  await queue.close();
});

test.each(points)("killed at %s: the run is whole, once, and nothing is left over", async (point) => {
  const { stores, state, states } = context;
  const name = point.replaceAll(".", "-");
  const root = stores.at(`${sandbox.path(`labels/${name}`)}/`);
  const options = { out: root.uri, shardSize: 2, format: "parquet", incremental: true } as const;
  const asked = askedJob("caption", sandbox.path("in"), options, "fleet");
  const timing = { cron: "0 0 29 2 *", timeZone: "UTC" };
  const given = { name, ...timing, command: [], asked, webhook: null };
  await createSchedule(given, { state, stores, findModel: find }, Date.now());
  const schedules = new Schedules(state);
  await schedules.update(name, (schedule) => ask(schedule, Date.now()));

  work();
  await diesAt(point, producerDyingAt(point));
  const ended = () =>
    until("the run to end", async () => {
      const { schedule } = await schedules.read(name);
      return schedule.runs.length > 0 && !schedule.run;
    });
  await goOn(ended);

  const { schedule } = await schedules.read(name);
  expect(schedule).toMatchObject({ asked: null, run: null, runs: [{ outcome: "finished", rows: 3, failed: 0 }] });
  const [job, out] = [schedule.runs[0]!.job!, schedule.runs[0]!.out!];
  expect(await states.find(job)).toMatchObject({ ended: "finished" });
  const { rows } = await expectWhole(stores.at(out), 3);
  const truth = [...captions].sort(([a], [b]) => (a < b ? -1 : 1));
  expect(rows.map(({ id, caption }) => [id, caption])).toEqual(truth);
  expect(await orphans(stores.at(out), rows)).toEqual([]);

  const { current, pending } = (await readRoot(root))!.root;
  // The one line at which a claim stays: whoever makes the next run sees that this one has ended.
  expect(pending?.job ?? null).toBe(point === "finisher.state.written" ? job : null);
  const view = (await Array.fromAsync(viewRows(root, readIndex(root, current!.index), stores))).flat();
  expect(view.map(({ line }) => JSON.parse(line).id)).toEqual(truth.map(([id]) => id));
  expect(await listRuns(root)).toEqual([current!.run]);
  expect(await Array.fromAsync(root.list({ prefix: datasetLayout.indexes }))).toHaveLength(1);
  expect(await stores.at(out).stat(layout.rollup(0))).not.toBeNull();

  await until("the last shard to leave Redis", async () => (await leftovers(redis, job)).length === 0);
  expect(await takeReports(redis, job)).toEqual([]);
});

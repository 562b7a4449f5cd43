/**
 * Who gets how much of a busy fleet. Dispatch is real; what a shard takes is not left to chance: all that are in hand end
 * together, in turns that the test counts, and the next turn begins when every slot has a shard again.
 */
import { connectRedis, liveWorkers, readFigures, readProgress } from "@capfleet/shared/queues";
import { storesFromEnv } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { JobStates } from "../../packages/producer/src/jobs/states.ts";
import { scaleOfPool } from "../../packages/producer/src/scale/pools.ts";
import { type Label, type NullJob, NullWorker, nullReconciler, type Place, submitNull } from "../support/null-fleet.ts";
import { Sandbox, type TestRedis, until } from "../support/processes.ts";

const SLOTS = 4;
const target = { drainSeconds: 1_800, startupSeconds: 180 };

let sandbox: Sandbox;
let server: TestRedis;
let redis: Redis;
let place: Place;
let states: JobStates;
let reconciler: ReturnType<typeof nullReconciler>;
let workers: NullWorker[] = [];
let inHand: { job: string; end: () => void }[] = [];

beforeAll(async () => {
  sandbox = await Sandbox.create();
  server = await sandbox.redis();
  redis = connectRedis(server.url, "patient");
});
afterAll(async () => {
  redis.disconnect();
  await sandbox.cleanUp();
});
let world = 0;
beforeEach(async () => {
  await redis.flushall();
  const stores = storesFromEnv({});
  place = { stores, state: `${sandbox.path(`state-${++world}`)}/`, redisUrl: server.url };
  states = new JobStates(stores.at(place.state));
  reconciler = nullReconciler(place);
});
afterEach(async () => {
  for (const worker of workers) await worker.stop();
  await reconciler.stop();
  [workers, inHand] = [[], []];
});

const label: Label = (_, { id }) =>
  new Promise((resolve) => {
    inHand.push({ job: id, end: () => resolve({ caption: "x", score: 0 }) });
  });

async function startWorkers(count: number): Promise<void> {
  workers = Array.from({ length: count }, (_, i) => new NullWorker(`worker-${i}`, SLOTS / count, place, label));
  for (const worker of workers) await worker.start();
}

let jobs = 0;
/** Of one record a shard. Planned, before anything else happens. */
async function submit(shards: number, more: Partial<NullJob> = {}): Promise<string> {
  const path = sandbox.path(`job-${jobs++}`);
  const { id } = await submitNull({ records: shards, shardSize: 1, path, ...more }, place);
  await until(`${id} to be planned`, async () => (await readProgress(redis, id))?.total === shards);
  return id;
}

/** All slots have a shard; all of these end. Whose they were. */
async function turn(): Promise<string[]> {
  await until("every slot to have a shard", () => inHand.length === SLOTS);
  const ended = inHand.splice(0);
  for (const { end } of ended) end();
  return ended.map(({ job }) => job);
}

test.each([1, 4])("beside %i others of its lane a job has its share of the slots", async (others) => {
  await startWorkers(2);
  const k = 12;
  for (let n = 0; n < others; n++) await submit(200);
  for (let n = 0; n < 5; n++) await turn();
  const mine = await submit(k);
  let [turns, done] = [0, 0];
  for (; done < k; turns++) done += (await turn()).filter((job) => job === mine).length;
  expect(turns).toBeLessThanOrEqual(((others + 1) * k) / SLOTS + 3);
});

test("beside a bulk job, and whichever came first, a normal one gets nine tenths", async () => {
  await startWorkers(2);
  const bulk = await submit(400, { lane: "bulk" });
  const normal = await submit(400);
  // What was handed out before the second came.
  for (let n = 0; n < 3; n++) await turn();
  const got: string[] = [];
  for (let n = 0; n < 50; n++) got.push(...(await turn()));
  const share = got.filter((job) => job === normal).length / got.length;
  expect(share).toBeGreaterThan(0.88);
  expect(share).toBeLessThan(0.92);
  expect(got).toContain(bulk);
});

test("wanted workers follow the jobs: one until a rate is known, by it from then on, none while all is paused", async () => {
  const wanted = async () =>
    scaleOfPool({ models: ["null"], precision: null }, await readFigures(redis), await liveWorkers(redis), target);
  const soon = (what: string, workers: number) =>
    until(what, async () => (await wanted().catch(() => -1)) === workers && "as wanted");
  const id = await submit(500);
  await soon("one to be wanted", 1);
  await startWorkers(1);
  await turn();
  // What is known now is that four shards took as good as no time: one is enough.
  const { load, models } = await until("a rate, when all four are counted", async () => {
    const set = (await readFigures(redis))?.backlog[0];
    return set?.load?.seconds && set.load.records === 496 ? set : null;
  });
  expect(models).toEqual([{ model: "null", precision: "fp32", digest: "null" }]);
  expect(load).toMatchObject({ shards: 496, probes: 0 });
  await soon("one to be wanted still", 1);

  // Nobody says 0 when Redis has forgotten everything: there is an error, and then what it was.
  await redis.flushall();
  const answers = new Set<number | string>();
  await until("an answer", async () => {
    const answer = await wanted().catch(({ code }) => code);
    answers.add(answer);
    return answers.has(1);
  });
  expect([...answers].filter((answer) => answer !== "FLEET_UNKNOWN")).toEqual([1]);

  // Paused with shards in hand: their worker stays until they are done.
  await until("the fleet to be back", async () => (await liveWorkers(redis))[0]?.inFlight.length === SLOTS);
  await states.update(id, (job) => ({ ...job, intent: "paused" }));
  await until("nothing to be left of it", async () => (await readFigures(redis))?.backlog[0]?.load?.records === 0);
  expect(await wanted()).toBe(1);
  await turn();
  await soon("none to be wanted", 0);
});

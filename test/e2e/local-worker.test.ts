/** The worker that `capfleet run` keeps on this machine, killed as the kernel kills what takes too much memory. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { connectRedis, liveWorkers } from "@capfleet/shared/queues";
import type { Redis } from "ioredis";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { LocalWorker } from "../../packages/producer/src/local/worker.ts";
import { capfleet, DEMO, Sandbox, type TestRedis, until } from "../support/processes.ts";

const IMAGE = join(DEMO, "images/scene-003.jpg");

let sandbox: Sandbox;
let redis: TestRedis;
let connection: Redis;
let env: NodeJS.ProcessEnv;
let worker: LocalWorker;

beforeEach(async () => {
  sandbox = await Sandbox.create();
  redis = await sandbox.redis();
  connection = connectRedis(redis.url, "patient");
  env = sandbox.env({ CAPFLEET_REDIS_URL: redis.url, CAPFLEET_GRACE_SECONDS: "0" });
  worker = new LocalWorker(["--models", "demo-caption", "--threads", "1"], env);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await worker.stop();
  connection.disconnect();
  await sandbox.cleanUp();
});

/** Waits for a worker process other than `before` that fulfils the condition, and kills it. */
async function killNext(before: number | null, condition: (pid: number) => Promise<boolean> | boolean) {
  const pid = await Promise.race([
    worker.failed,
    until("the next worker", async () => {
      const { pid } = worker;
      return pid !== null && pid !== before && (await condition(pid)) ? pid : null;
    }),
  ]);
  process.kill(pid, "SIGKILL");
  return pid;
}

test("killed three times before it has labelled a row: given up, however long each of them lived", async () => {
  let later = 0;
  const now = performance.now.bind(performance);
  vi.spyOn(performance, "now").mockImplementation(() => now() + later);
  let pid: number | null = null;
  for (let time = 0; time < 3; time++) {
    pid = await killNext(pid, () => true);
    later += 3_600_000;
  }
  await expect(worker.failed).rejects.toMatchObject({
    code: "WORKER_START_FAILED",
    message: expect.stringMatching(/died 3 times before it had labelled a row \(the last time: SIGKILL\): memory may/),
  });
});

test("killed again and again after it has labelled some: started again each time", async () => {
  const lines = Array.from({ length: 20_000 }, (_, n) => JSON.stringify({ id: String(n), image: IMAGE }));
  await writeFile(sandbox.path("list.jsonl"), lines.join("\n"));
  const job = ["submit", "caption", sandbox.path("list.jsonl"), "--out", sandbox.path("out"), "--shard-size", "100"];
  expect(await capfleet(env, ...job)).toMatchObject({ code: 0 });
  sandbox.producer(env);
  const isLabelling = async (pid: number) =>
    (await liveWorkers(connection)).some((each) => each.pid === pid && each.inFlight.some(({ rows }) => rows > 0));
  let pid: number | null = null;
  for (let time = 0; time < 4; time++) pid = await killNext(pid, isLabelling);
});

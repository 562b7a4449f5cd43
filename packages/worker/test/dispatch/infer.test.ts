import { randomUUID } from "node:crypto";
import { CapfleetError, type EngineRef, jobTaskSpecSchema } from "@capfleet/shared/contract";
import { createLog } from "@capfleet/shared/log";
import {
  beat,
  connectRedis,
  type InferPayload,
  type InferRequest,
  inferQueue,
  keys,
  MAX_OPEN,
  MAX_OPEN_BYTES,
  MAX_UPLOAD_BYTES,
  openRequest,
  redisPrefix,
  withdrawRequest,
} from "@capfleet/shared/queues";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Sandbox, type TestRedis, until } from "../../../../test/support/processes.ts";
import { InferClient } from "../../../producer/src/infer/client.ts";
import { InferConsumer } from "../../src/dispatch/infer.ts";
import type { Labeler } from "../../src/pipeline/labeler.ts";

const engine: EngineRef = { model: "m", digest: "d", checkpoint: "c", precision: "fp32" };
const request: InferRequest = {
  task: jobTaskSpecSchema.parse({ name: "caption", decoding: {} }),
  engines: [engine],
  record: { id: "1", image: "file:///1.jpg" },
};

let sandbox: Sandbox;
let server: TestRedis;
let redis: Redis;
let queue: Queue<InferPayload>;
let client: InferClient;
const consumers: InferConsumer[] = [];

beforeEach(async () => {
  sandbox = await Sandbox.create();
  server = await sandbox.redis();
  redis = connectRedis(server.url, "patient");
  queue = new Queue(inferQueue(engine.digest), { connection: redis, prefix: redisPrefix() });
  client = new InferClient(redis);
});
afterEach(async () => {
  await client.close();
  await Promise.all(consumers.splice(0).map((consumer) => consumer.stop(0)));
  await queue.close();
  redis.disconnect();
  await sandbox.cleanUp();
});

/** A worker in this process; a dead one has a presence and no consumer. */
async function present(id = "w"): Promise<void> {
  const inFlight: never[] = [];
  await beat(redis, { id, host: "h", pid: 1, version: "0", engines: [engine], slots: 1, pricePerHour: null, inFlight });
}
async function consume(labelNow: Labeler["labelNow"]): Promise<InferConsumer> {
  await present();
  const consumer = new InferConsumer([engine], redis, { labelNow }, createLog("test", "silent"));
  consumers.push(consumer);
  consumer.start();
  return consumer;
}

const row = { caption: "x", score: -1 };
const left = () => redis.keys(`${redisPrefix()}:infer:*`);
const entries = async () => Object.values(await queue.getJobCounts("wait", "active", "failed", "completed"));
const nothingLeft = () =>
  until("nothing of it in Redis", async () => {
    const inbox = (await left()).filter((key) => !key.startsWith(keys.inferInbox("")));
    return inbox.length === 0 && (await entries()).every((n) => n === 0);
  });

test("the record, its task and an uploaded image get to the worker, and its fields back; nothing is left", async () => {
  const seen: unknown[] = [];
  await consume(async (record, { spec }, upload) => {
    seen.push({ record, spec, upload });
    return row;
  });
  const upload = Buffer.from([0, 255, 10, 13]);
  const record = { id: "1", image: null, texts: ["a dog"] };
  expect(await client.infer({ ...request, record }, upload)).toEqual(row);
  expect(await client.infer(request, null)).toEqual(row);
  const { task, engines } = request;
  expect(seen).toEqual([
    { record, spec: { task, engines }, upload },
    { record: request.record, spec: { task, engines }, upload: null },
  ]);
  await nothingLeft();
  await client.close();
  expect(await left()).toEqual([]);
});

test("an error comes back with its code, whatever its scope", async () => {
  const codes = ["IMAGE_UNREADABLE", "STORE_ACCESS_DENIED", "INVALID_OPTION", "ENGINE_FAILED"] as const;
  await consume(async ({ id }) => {
    throw new CapfleetError(codes[Number(id)]!, "this is why");
  });
  for (const [i, code] of codes.entries()) {
    const asked = client.infer({ ...request, record: { id: String(i), image: null } }, null);
    await expect(asked).rejects.toMatchObject({ code, message: "this is why" });
  }
});

test("no live worker: an error at once, and as soon as the last one has gone", async () => {
  await expect(client.infer(request, null)).rejects.toMatchObject({ code: "NO_WORKER" });
  await present("another");
  const other = { ...request, engines: [{ ...engine, digest: "e" }] };
  await expect(client.infer(other, null)).rejects.toMatchObject({ code: "NO_WORKER" });

  const waiting = client.infer(request, null, { timeoutMs: 600_000 });
  await until("the request to wait", async () => (await queue.getWaitingCount()) === 1);
  await redis.del(keys.worker("another"));
  await expect(waiting).rejects.toMatchObject({ code: "NO_WORKER" });
  await nothingLeft();
});

test("a request whose time is over, or whose asker has left, is withdrawn, and a late answer dropped", async () => {
  const go = Promise.withResolvers<typeof row>();
  let begun = 0;
  await consume(() => {
    begun += 1;
    return go.promise;
  });
  await expect(client.infer(request, null, { timeoutMs: 300 })).rejects.toMatchObject({ code: "INFER_TIMEOUT" });
  // It may have begun or not: that is the machine's to say.
  begun = 0;
  const leaving = new AbortController();
  const left = client.infer(request, null, { signal: leaving.signal });
  await until("the second to begin", () => begun === 1);
  leaving.abort(new Error("gone"));
  await expect(left).rejects.toThrow("gone");
  const kept = client.infer(request, null);
  await until("the third to begin", () => begun === 2);
  go.resolve(row);
  expect(await kept).toEqual(row);
  await nothingLeft();
});

test("what an asker that died leaves behind: no worker begins it, and it expires", async () => {
  const begun: string[] = [];
  await openRequest(redis, "dead", request, Buffer.alloc(1_000), 200);
  await queue.add("infer", { v: 1, asker: "nobody" }, { jobId: "dead", removeOnComplete: true, removeOnFail: true });
  await until("it to expire", async () => (await left()).length === 0);
  await consume(async ({ id }) => {
    begun.push(id);
    return row;
  });
  await nothingLeft();
  expect(begun).toEqual([]);
});

test("too many requests, or too many bytes, are refused; withdrawn ones make room", async () => {
  await present();
  const ask = (image: Uint8Array | null = null) => openRequest(redis, randomUUID(), request, image, 60_000);
  const first = randomUUID();
  expect(await openRequest(redis, first, request, null, 60_000)).toBe(true);
  for (let n = 1; n < MAX_OPEN; n++) expect(await ask()).toBe(true);
  await expect(client.infer(request, null)).rejects.toMatchObject({ code: "INFER_BUSY" });
  await withdrawRequest(redis, first);
  expect(await ask()).toBe(true);
  expect(await ask()).toBe(false);

  await redis.del(keys.inferOpen());
  const large = Buffer.alloc(1_000_000);
  await redis.zadd(keys.inferOpen(), Date.now() + 60_000, `${MAX_OPEN_BYTES - large.length}:somebody`);
  expect(await ask(large)).toBe(false);
  expect(await ask(large.subarray(10_000))).toBe(true);
});

test("an upload that is empty or too large is refused before anything is sent", async () => {
  await expect(client.infer(request, Buffer.alloc(0))).rejects.toMatchObject({ code: "IMAGE_EMPTY" });
  const large = Buffer.alloc(MAX_UPLOAD_BYTES + 1);
  await expect(client.infer(request, large)).rejects.toMatchObject({ code: "IMAGE_TOO_LARGE" });
  expect(await left()).toEqual([]);
});

test("stopping: what is not answered within the grace goes to another worker at once", async () => {
  const finishing = Promise.withResolvers<typeof row>();
  const asked: string[] = [];
  const first = await consume(({ id }) => {
    asked.push(id);
    return id === "1" ? finishing.promise : new Promise(() => {});
  });
  const within = client.infer(request, null);
  const beyond = client.infer({ ...request, record: { id: "2", image: null } }, null);
  await until("both to begin", () => asked.length === 2);
  const stopping = first.stop(500);
  finishing.resolve(row);
  expect(await within).toEqual(row);
  await stopping;
  expect(await queue.getWaitingCount()).toBe(1);
  await consume(async () => ({ ...row, caption: "by the second" }));
  expect(await beyond).toMatchObject({ caption: "by the second" });
});

test("a request that has taken two workers down is an error, and is not begun a third time", async () => {
  let begun = 0;
  await present();
  const asked = client.infer(request, null);
  asked.catch(() => {});
  const job = await until("it to wait", async () => (await queue.getWaiting())[0]);
  // What BullMQ counts when a worker's lock runs out.
  await redis.hset(queue.toKey(job.id!), "stc", 2);
  await consume(async () => {
    begun += 1;
    return row;
  });
  await expect(asked).rejects.toMatchObject({ code: "WORKER_CRASHED" });
  expect(begun).toBe(0);
});

test("an answer that comes while the asker is cut off from Redis is there when it is back", async () => {
  const go = Promise.withResolvers<typeof row>();
  let begun = 0;
  await consume(() => {
    begun += 1;
    return go.promise;
  });
  const asked = client.infer(request, null);
  await until("it to begin", () => begun === 1);
  const ears = await until("the asker to listen", async () => {
    const clients = (await redis.client("LIST")) as string;
    return clients.split("\n").find((line) => line.includes("cmd=xread"));
  });
  const listening = /(?:^| )id=(\d+)/.exec(ears)![1]!;
  // The connection breaks and the answer comes in the same breath.
  const [killed] = await Promise.all([redis.client("KILL", "ID", listening), go.resolve(row)]);
  expect(killed).toBe(1);
  expect(await asked).toEqual(row);
});

test("Redis is away: a hasty client says so instead of waiting", async () => {
  const hasty = connectRedis(server.url, "hasty");
  const other = new InferClient(hasty);
  await hasty.ping();
  await server.kill();
  await expect(other.infer(request, null)).rejects.toMatchObject({ code: "REDIS_UNREACHABLE" });
  await other.close();
  hasty.disconnect();
  await server.start();
});

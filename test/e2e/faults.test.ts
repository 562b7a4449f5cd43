/**
 * The first faults, with real processes. After each: every record has exactly one row, right or with a clear error, and
 * the job has finished by itself.
 */
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { jobStateSchema, layout } from "@capfleet/shared/contract";
import { connectRedis, liveWorkers, readProgress, redisPrefix } from "@capfleet/shared/queues";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import { afterEach, beforeEach, describe, expect, inject, test } from "vitest";
import { flakyProxy } from "../support/flaky-proxy.ts";
import { hostileImages } from "../support/images/index.ts";
import { capfleet, DEMO, type Running, Sandbox, type TestRedis, until } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";
import type { S3Server } from "../support/s3/ceph.ts";

const IMAGES = ["scene-003.jpg", "scene-006.png", "scene-018.webp"];

let sandbox: Sandbox;
let redis: TestRedis;
let env: NodeJS.ProcessEnv;

beforeEach(async () => {
  sandbox = await Sandbox.create();
  redis = await sandbox.redis();
  env = sandbox.env({ CAPFLEET_REDIS_URL: redis.url, CAPFLEET_GRACE_SECONDS: "5" });
});
afterEach(() => sandbox.cleanUp());

/** A manifest of so many records over a few pictures. */
async function manifest(records: number): Promise<string> {
  await mkdir(sandbox.path("in/pictures"), { recursive: true });
  for (const name of IMAGES) await cp(join(DEMO, "images", name), sandbox.path(`in/pictures/${name}`));
  const line = (n: number) => JSON.stringify({ id: String(n), image: `pictures/${IMAGES[n % IMAGES.length]}` });
  await writeFile(sandbox.path("in/list.jsonl"), Array.from({ length: records }, (_, n) => line(n)).join("\n"));
  return sandbox.path("in/list.jsonl");
}

const out = (): Store => storesFromEnv({}).at(`${sandbox.path("out")}/`);

async function submit(input: string, ...options: string[]): Promise<string> {
  const args = ["submit", "caption", input, "--out", sandbox.path("out"), "--model", "demo-caption", ...options];
  const { code, stdout, stderr } = await capfleet(env, ...args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return stdout.trim();
}

const finished = (seconds = 120) => until("the job to finish", () => out().stat(layout.success), seconds);

/** Waits until a worker has rows in work that it has not committed, and says which worker. */
async function midShard(): Promise<number> {
  const connection = connectRedis(redis.url, "patient");
  try {
    return await until("a worker in mid-shard", async () => {
      const workers = await liveWorkers(connection);
      return workers.find(({ inFlight }) => inFlight.some(({ rows }) => rows > 0))?.pid ?? null;
    });
  } finally {
    connection.disconnect();
  }
}

const captionsOf = (rows: { caption?: string | undefined }[]) => new Set(rows.map(({ caption }) => caption));

test("SIGKILL of a worker in mid-shard: the others have done its shards within a minute", async () => {
  await submit(await manifest(2_000), "--shard-size", "100");
  sandbox.producer(env);
  const workers: Running[] = [sandbox.worker(env), sandbox.worker(env)];
  const pid = await midShard();
  const killed = performance.now();
  process.kill(pid, "SIGKILL");
  await finished(90);
  expect((performance.now() - killed) / 1_000).toBeLessThan(60);
  expect(workers.filter(({ child }) => child.exitCode === null && child.signalCode === null)).toHaveLength(1);
  const { rows } = await expectWhole(out(), 2_000);
  expect(captionsOf(rows).size).toBe(IMAGES.length);
});

test("SIGKILL of the producer in mid-plan: the next one goes on where it ended", async () => {
  await submit(await manifest(60_000), "--shard-size", "20", "--limit", "50000");
  const producer = sandbox.producer(env);
  await until("some of the plan", () => out().stat(layout.shard(50)));
  await producer.kill("SIGKILL");
  expect(await out().stat(layout.plan)).toBeNull();
  const before = (await out().stat(layout.shard(50)))!.etag;
  sandbox.producer(env);
  const plan = await until("the whole plan", () => out().stat(layout.plan));
  expect(plan).not.toBeNull();
  expect((await out().stat(layout.shard(50)))!.etag).toBe(before);
  const ids: string[] = [];
  for await (const { key } of out().list({ prefix: layout.shards })) {
    const lines = (await out().read(key)).bytes.toString("utf8").trimEnd().split("\n");
    for (const line of lines.slice(0, -1)) ids.push(JSON.parse(line).id);
  }
  expect(ids).toEqual(Array.from({ length: 50_000 }, (_, n) => String(n)));
});

test("SIGKILL of the producer in mid-job: one that stood by takes over", async () => {
  await submit(await manifest(1_500), "--shard-size", "50");
  const first = sandbox.producer(env);
  sandbox.worker(env);
  await midShard();
  const second = sandbox.producer({ ...env, CAPFLEET_LOG: "info" });
  await until("the second producer", () => second.stderr.includes("serving"));
  await first.kill("SIGKILL");
  await finished();
  await expectWhole(out(), 1_500);
});

test("Redis killed and restarted empty in mid-job: it carries on by itself", async () => {
  await submit(await manifest(2_000), "--shard-size", "100");
  const producer = sandbox.producer(env);
  const worker = sandbox.worker(env);
  for (let time = 0; time < 2; time++) {
    await midShard();
    await redis.kill();
    await redis.start();
  }
  await finished();
  expect([producer, worker].map(({ child }) => child.exitCode)).toEqual([null, null]);
  await expectWhole(out(), 2_000);
});

test("two workers finish the same shard: one commit stands, and the job counts it once", async () => {
  await submit(await manifest(600), "--shard-size", "600");
  const producer = sandbox.producer(env);
  const workers = [sandbox.worker({ ...env, CAPFLEET_LOG: "debug" })];
  await midShard();
  // Redis forgets that the shard is in work: another worker gets it, while the first goes on.
  await redis.kill();
  await redis.start();
  process.kill(workers[0]!.pid, "SIGSTOP");
  workers.push(sandbox.worker(env));
  await finished();
  const before = (await out().stat(layout.result(0)))!.etag;
  process.kill(workers[0]!.pid, "SIGCONT");
  await until("the first worker to come too late", () => workers[0]!.stderr.includes('"outcome":"already"'));
  await producer.kill("SIGTERM");
  expect((await out().stat(layout.result(0)))!.etag).toBe(before);
  await expectWhole(out(), 600);
});

test("hostile files become rows with the right error; good ones with hostile names are labelled", async () => {
  await mkdir(sandbox.path("in"));
  const images = await hostileImages(sandbox.path("in"));
  const good = await manifest(3);
  const lines = images.map(({ name }) => JSON.stringify({ id: name, image: name }));
  lines.push(
    JSON.stringify({ id: "gone", image: "gone.jpg" }),
    JSON.stringify({ id: "ok", image: `pictures/${IMAGES[0]}` }),
  );
  await writeFile(good, lines.join("\n"));
  await submit(good);
  sandbox.producer(env);
  sandbox.worker(env);
  await finished();
  const { rows } = await expectWhole(out(), lines.length);
  const verdict = Object.fromEntries(rows.map(({ id, error }) => [id, error?.code ?? "caption"]));
  const expected = Object.fromEntries(images.map(({ name, expect: verdict }) => [name, verdict]));
  expect(verdict).toEqual({ ...expected, gone: "IMAGE_NOT_FOUND", ok: "caption" });
  for (const { error } of rows) expect(error?.message ?? "").not.toMatch(/\n|\bat .*:\d+/);
});

describe("a fleet at work", () => {
  test("waits for a worker and says so; pause holds, resume goes on", async () => {
    const id = await submit(await manifest(1_500), "--shard-size", "50");
    sandbox.producer(env);
    const status = async () => JSON.parse((await capfleet(env, "status", id, "--json")).stdout);
    await until("the reason of waiting", async () => /no worker for demo-caption/.test((await status()).waiting ?? ""));

    const worker = sandbox.worker(env);
    await midShard();
    expect((await capfleet(env, "pause", id)).code).toBe(0);
    // A shard that a worker took before it heard of the pause still commits; after that no queue holds one.
    const queues = connectRedis(redis.url, "patient");
    const queued = async () => (await queues.keys(`${redisPrefix()}:work.*:${id}.*`)).length;
    const commits = async () => (await Array.fromAsync(out().list({ prefix: layout.results }))).length;
    const held = await until("nothing in work", async () => {
      const { state, committed } = await status();
      return state === "paused" && (await queued()) === 0 && committed === (await commits()) * 50 ? committed : null;
    });
    queues.disconnect();
    expect(held).toBeLessThan(1_500);
    expect(await status()).toMatchObject({ state: "paused", committed: held });
    expect(await commits()).toBe(held / 50);

    expect((await capfleet(env, "resume", id)).code).toBe(0);
    const watched = await capfleet(env, "watch", id);
    expect(watched).toMatchObject({ code: 0, stdout: expect.stringContaining("finished: 1,500 rows") });
    await expectWhole(out(), 1_500);

    // Stopping in good order: nothing left in work, exit code 0.
    worker.child.kill("SIGTERM");
    expect(await worker.ended()).toBe(0);
  });

  test("cancel keeps what is committed, writes a summary and no _SUCCESS", async () => {
    const id = await submit(await manifest(20_000), "--shard-size", "100");
    sandbox.producer(env);
    sandbox.worker(env);
    await until("a commit", () => out().stat(layout.result(0)));
    expect((await capfleet(env, "cancel", id)).code).toBe(0);
    await until("the end", () => out().stat(layout.summary));
    const state = await until("the state", async () => {
      const text = await storesFromEnv({})
        .at(`${sandbox.path("state")}/`)
        .read(`jobs/${id}.json`);
      const parsed = jobStateSchema.parse(JSON.parse(text.bytes.toString()));
      return parsed.ended ? parsed : null;
    });
    expect(state.ended).toBe("cancelled");
    expect(await out().stat(layout.success)).toBeNull();
    const summary = JSON.parse((await out().read(layout.summary)).bytes.toString());
    const committed = (await Array.fromAsync(out().list({ prefix: layout.results }))).length;
    expect(summary).toMatchObject({ state: "cancelled", rows: committed * 100 });
    expect((await capfleet(env, "resume", id)).stderr).toMatch(/^JOB_STATE/);
  });
});

const s3Server = inject("s3");

test("cancel of a job whose only worker has died: it ends all the same", async () => {
  const id = await submit(await manifest(1_500), "--shard-size", "50");
  sandbox.producer(env);
  const worker = sandbox.worker(env);
  await midShard();
  await worker.kill("SIGKILL");
  expect((await capfleet(env, "cancel", id)).code).toBe(0);
  await until("the summary", () => out().stat(layout.summary));
  const summary = JSON.parse((await out().read(layout.summary)).bytes.toString());
  const committed = (await Array.fromAsync(out().list({ prefix: layout.results }))).length;
  expect(summary).toMatchObject({ state: "cancelled", rows: committed * 50 });
});

describe.skipIf("skipped" in s3Server)("a store that answers 503 for a while", () => {
  test("the job is blocked, says why, and goes on by itself", async () => {
    const { endpoint, accessKeyId, secretAccessKey } = s3Server as S3Server;
    const proxy = await flakyProxy(endpoint);
    sandbox.atEnd(() => proxy.close());
    const bucket = `flaky-${Date.now()}`;
    const store = { prefix: `s3://${bucket}/`, region: "us-east-1", accessKeyId, secretAccessKey };
    const s3 = { CAPFLEET_STORES: JSON.stringify([{ ...store, endpoint: proxy.endpoint }]) };
    env = { ...env, ...s3 };
    const credentials = { accessKeyId, secretAccessKey };
    const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, credentials });
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
    client.destroy();
    const source = storesFromEnv(s3).at(`s3://${bucket}/in/`);
    for (let n = 0; n < 300; n++) {
      await source.put(`${n} ä?#%.jpg`, await readFile(join(DEMO, "images", IMAGES[0]!)));
    }
    const args = ["submit", "caption", `s3://${bucket}/in/`, "--out", `s3://${bucket}/out/`, "--shard-size", "16"];
    const { stdout, stderr } = await capfleet(env, ...args);
    expect(stderr).toBe("");
    const id = stdout.trim();
    sandbox.producer(env);
    sandbox.worker(env, "--slots", "4");
    const target = storesFromEnv(s3).at(`s3://${bucket}/out/`);
    await until("a commit", () => target.stat(layout.result(0)));
    proxy.trouble = "503";
    const connection = connectRedis(redis.url, "patient");
    const blocked = await until("the job to be blocked", async () => {
      const progress = await readProgress(connection, id);
      return progress?.state === "blocked" ? progress.reason : null;
    });
    connection.disconnect();
    expect(blocked).toMatchObject({ code: "STORE_UNAVAILABLE", message: expect.stringContaining(bucket) });
    proxy.trouble = null;
    await until("the job to finish", () => target.stat(layout.success), 120);
    const { rows } = await expectWhole(target, 300);
    expect(rows.filter(({ error }) => error)).toEqual([]);
    expect((await capfleet(env, "status", id)).stdout).toContain("finished  300/300");
  });
});

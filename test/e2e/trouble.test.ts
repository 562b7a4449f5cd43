/**
 * What lasts and then passes: a Redis that is full, slow or gone quiet, a store that fails in every way, a full disk, a cut
 * cable. One world, a job for each test; all must go on by themselves and end with the rows of a job that nothing disturbed.
 * `npm run chaos` (test/chaos) does the same at random, and more of it.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { layout } from "@capfleet/shared/contract";
import { connectRedis, liveWorkers, type Progress, readProgress } from "@capfleet/shared/queues";
import { type Store, type Stores, storesFromEnv } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from "vitest";
import { Namespaces } from "../chaos/namespaces.ts";
import { KIND_NAMES, planFaults } from "../chaos/plan.ts";
import { SmallDisk } from "../chaos/small-disk.ts";
import { type FlakyProxy, flakyProxy, type Trouble } from "../support/flaky-proxy.ts";
import { DEMO, Running, Sandbox, type TestRedis, until, WORKER } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";
import type { S3Server } from "../support/s3/ceph.ts";
import { submitHere } from "../support/submit.ts";

const IMAGES = ["scene-003.jpg", "scene-009.jpg", "scene-018.webp", "scene-020.jpg"];
const RECORDS = 200;
const BUCKET = `trouble-${Date.now()}`;
const INPUT = `s3://${BUCKET}/in/list.jsonl`;
const CHAOS = fileURLToPath(new URL("../chaos/chaos.ts", import.meta.url));
const s3 = inject("s3");

let sandbox: Sandbox;
let server: TestRedis;
let redis: Redis;
let proxy: FlakyProxy;
let stores: Stores;
let env: NodeJS.ProcessEnv;
/** Null where there can be none: who is not root has no networks or disks to give. */
let namespaces: Namespaces | null;
let disk: SmallDisk | null;
let captions: Map<string, string>;

describe.skipIf("skipped" in s3)("in trouble", () => {
  beforeAll(async () => {
    sandbox = await Sandbox.create();
    namespaces = await Namespaces.create(["worker"]).catch(() => null);
    sandbox.atEnd(async () => namespaces?.remove());
    disk = await SmallDisk.mount(sandbox.path("tmp"), 1).catch(() => null);
    sandbox.atEnd(async () => disk?.unmount());
    const host = namespaces?.address ?? "127.0.0.1";
    server = await sandbox.redis("secret", "--bind", "127.0.0.1", ...(namespaces ? [host] : []));
    redis = connectRedis(server.url, "patient");
    sandbox.atEnd(async () => redis.disconnect());
    const { endpoint, accessKeyId, secretAccessKey } = s3 as S3Server;
    proxy = await flakyProxy(endpoint, host);
    sandbox.atEnd(() => proxy.close());
    const credentials = { accessKeyId, secretAccessKey };
    const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, credentials });
    await client.send(new CreateBucketCommand({ Bucket: BUCKET }));
    client.destroy();
    const state = { CAPFLEET_STATE: `s3://${BUCKET}/state/` };
    const at = (endpoint: string) => {
      const store = { prefix: `s3://${BUCKET}/`, region: "us-east-1", accessKeyId, secretAccessKey, timeoutMs: 1_000 };
      return { ...state, CAPFLEET_STORES: JSON.stringify([{ ...store, endpoint }]) };
    };
    env = sandbox.env(at(endpoint));
    stores = storesFromEnv(env);
    sandbox.atEnd(async () => stores.close());
    const input = stores.at(`s3://${BUCKET}/in/`);
    for (const name of IMAGES) await input.put(name, await readFile(join(DEMO, "images", name)));
    const line = (n: number) => JSON.stringify({ id: String(n), image: IMAGES[n % IMAGES.length] });
    await input.put("list.jsonl", Array.from({ length: RECORDS }, (_, n) => line(n)).join("\n"));

    const theirs = sandbox.env({ ...at(proxy.endpoint), CAPFLEET_REDIS_URL: server.url.replace("127.0.0.1", host) });
    sandbox.producer(theirs);
    const command = [...(namespaces?.enter("worker") ?? []), process.execPath, WORKER, "--models", "demo-caption"];
    const worker = new Running(
      "worker",
      [...command.slice(1), "--threads", "1"],
      { ...theirs, ...(disk && { TMPDIR: disk.folder, NODE_COMPILE_CACHE: sandbox.path("compiled") }) },
      command[0]!,
    );
    sandbox.atEnd(() => worker.kill("SIGKILL"));
    captions = await finish(await begin());
  }, 180_000);
  afterEach(async () => {
    proxy.trouble = null;
    await namespaces?.mend("worker");
    await disk?.clear();
  });
  afterAll(() => sandbox?.cleanUp());

  test("Redis out of memory, emptied, slow, hung: the job goes on", async () => {
    const job = await begin();
    await redis.config("SET", "maxmemory", "1");
    await until("writes to be refused", async () =>
      /errorstat_OOM:count=(?!\d\b)/.test(await redis.info("errorstats")),
    );
    const late = sandbox.worker({ ...env, CAPFLEET_REDIS_URL: server.url });
    await until("a worker that starts meanwhile to be ready", () => {
      if (late.child.exitCode !== null) throw new Error(late.stderr);
      return late.stderr.includes('"msg":"ready"');
    });
    expect(late.stderr).toMatch(/"code":"REDIS_REFUSED".*"msg":"no heartbeat"/);
    await redis.config("SET", "maxmemory", "0");
    await until("it to be seen", async () => (await liveWorkers(redis)).some(({ pid }) => pid === late.pid));
    await late.kill("SIGTERM");
    await job.moved();
    await redis.flushall();
    await job.moved();
    await redis.call("CLIENT", "PAUSE", "4000", "WRITE");
    await job.moved();
    server.signal("SIGSTOP");
    // Longer than any lock or lease lasts.
    await new Promise((resolve) => setTimeout(resolve, 11_000));
    server.signal("SIGCONT");
    await job.moved();
    expect(await finish(job)).toEqual(captions);
  });

  test("a store that fails in every way: no row says so", async () => {
    const job = await begin();
    for (const trouble of ["500", "reset", "lost", "truncated", "race", "silent"] satisfies Trouble[]) {
      const before = proxy.troubled;
      Object.assign(proxy, { trouble, every: 1 });
      await until(`trouble: ${trouble}`, () => proxy.troubled >= before + 8);
      proxy.trouble = null;
      await job.moved();
    }
    expect(await finish(job)).toEqual(captions);
  });

  test("a store that is silent until the job is blocked: it says why, and goes on", async () => {
    const job = await begin();
    proxy.trouble = "silent";
    const { reason } = await job.shows("blocked", ({ state }) => state === "blocked");
    expect(reason).toMatchObject({ code: "STORE_UNAVAILABLE", message: expect.stringContaining(BUCKET) });
    proxy.trouble = null;
    expect(await finish(job)).toEqual(captions);
  });

  test("a full disk where images wait for their tar: the job is blocked, says why, and goes on", async ({ skip }) => {
    if (!disk) return skip("no small disk: not root, or not Linux");
    const job = await begin();
    await disk.fill();
    const { reason } = await job.shows("blocked", async ({ state }) => {
      await disk!.fill();
      return state === "blocked";
    });
    expect(reason).toMatchObject({ code: "STORE_UNAVAILABLE", message: expect.stringContaining("the disk is full") });
    await disk.clear();
    expect(await finish(job)).toEqual(captions);
  });

  test("a worker that is cut off, past its locks, and comes back: the job goes on", async ({ skip }) => {
    if (!namespaces) return skip("no network namespaces: not root, or not Linux");
    const job = await begin();
    await namespaces.cut("worker");
    await job.shows("waiting", ({ waiting }) => waiting?.startsWith("no worker") === true);
    await namespaces.mend("worker");
    expect(await finish(job)).toEqual(captions);
  });

  test("npm run chaos: one line of JSON, and nothing lost", async () => {
    const { endpoint, accessKeyId, secretAccessKey } = s3 as S3Server;
    const theirs = {
      ...process.env,
      CAPFLEET_TEST_S3_ENDPOINT: endpoint,
      CAPFLEET_TEST_S3_ACCESS_KEY: accessKeyId,
      CAPFLEET_TEST_S3_SECRET_KEY: secretAccessKey,
    };
    const options = ["--faults", "6", "--records", "600", "--seed", "1"];
    const child = spawn(process.execPath, [CHAOS, ...options], { env: theirs, stdio: ["ignore", "pipe", "pipe"] });
    sandbox.atEnd(async () => void child.kill("SIGTERM"));
    const said = text(child.stderr);
    const [stdout, [code]] = await Promise.all([text(child.stdout), once(child, "exit")]);
    expect(code, await said).toBe(0);
    const nothing = {
      lost: 0,
      doubled: 0,
      wrong: 0,
      stuck: 0,
      orphans: 0,
      leftoverObjects: 0,
      leftoverKeys: 0,
      crashes: 0,
    };
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({ seed: 1, records: 600, rows: 600, problems: 0, ...nothing });
    expect(result.faults + result.unreached).toBe(6);
  }, 400_000);
});

test("faults at random are the same for the same seed: each kind once before one comes again, and rows after each", () => {
  const plan = (seed: number) => planFaults(2 * KIND_NAMES.length, seed, 1_000, KIND_NAMES);
  expect(plan(1)).toEqual(plan(1));
  expect(plan(1)).not.toEqual(plan(2));
  const kinds = plan(3).map(({ kind }) => kind);
  for (const from of [0, KIND_NAMES.length])
    expect(kinds.slice(from, from + KIND_NAMES.length).sort()).toEqual([...KIND_NAMES].sort());
  const moments = plan(3).map(({ at }) => at);
  expect(moments).toEqual(moments.toSorted((a, b) => a - b));
  expect(moments.at(-1)).toBeLessThan(900);
});

let jobs = 0;

interface Job {
  store: Store;
  /** Waits until more is committed than now. */
  moved(): Promise<void>;
  shows(what: string, is: (progress: Progress) => boolean | Promise<boolean>): Promise<Progress>;
}

/** A job that has committed something, and has much left. */
async function begin(): Promise<Job> {
  const out = `s3://${BUCKET}/out-${jobs++}/`;
  const line = ["caption", INPUT, "--out", out, "--format", "webdataset", "--shard-size", "10"];
  const { id, store } = await submitHere(env, stores, line);
  const commits = async () => (await Array.fromAsync(store.list({ prefix: layout.results }))).length;
  const moved = async () => {
    const before = await commits();
    await until("a commit", async () => (await commits()) > before, 170);
  };
  await moved();
  const shows: Job["shows"] = (what, is) =>
    until(
      what,
      async () => {
        const progress = await readProgress(redis, id);
        return progress && (await is(progress)) ? progress : null;
      },
      120,
    );
  return { store, moved, shows };
}

/** The captions by image, of a job whose rows are all there and all labelled. */
async function finish({ store }: Job): Promise<Map<string, string>> {
  await until("the job to finish", () => store.stat(layout.success), 120);
  const { rows, summary } = await expectWhole(store, RECORDS);
  expect(summary.failed).toBe(0);
  const found = new Map(rows.map(({ image, caption }) => [image!, caption!]));
  for (const { image, caption } of rows) expect(caption).toBe(found.get(image!));
  expect((await Array.fromAsync(store.list({ prefix: layout.data }))).length).toBe(summary.files);
  return found;
}

/** One picture, answered while you wait: `capfleet infer` and its client against real workers, with no producer running. */
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { CreateBucketCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { readConfig } from "@capfleet/shared/config";
import { jobTaskSpecSchema, layout, type Task } from "@capfleet/shared/contract";
import { findModel, type Model } from "@capfleet/shared/models";
import { connectRedis, type InferRow, keys, liveWorkers, redisPrefix } from "@capfleet/shared/queues";
import { storesFromEnv } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { InferClient } from "../../packages/producer/src/infer/client.ts";
import { inferRequestOf } from "../../packages/producer/src/infer/request.ts";
import { DEFAULT_MODELS } from "../../packages/producer/src/jobs/asked-job.ts";
import { capfleet, DEMO, type Running, Sandbox, until } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";
import type { S3Server } from "../support/s3/ceph.ts";

interface Sample {
  id: string;
  image: string;
  alt: string;
  question: string;
  truth: { caption: string; alt_matches: boolean; answer: string };
}

const s3Server = inject("s3");
const bucket = `infer-${Date.now()}`;
let sandbox: Sandbox;
let redis: Redis;
let env: NodeJS.ProcessEnv;
let worker: Running;
let samples: Sample[];

beforeAll(async () => {
  sandbox = await Sandbox.create();
  const server = await sandbox.redis();
  const stores = "skipped" in s3Server ? [] : [{ ...s3Settings(s3Server), prefix: `s3://${bucket}/` }];
  const held = await holdingServer();
  const hold = { prefix: "s3://held/", endpoint: held, region: "us-east-1", accessKeyId: "a", secretAccessKey: "b" };
  const all = JSON.stringify([...stores, hold]);
  env = sandbox.env({ CAPFLEET_REDIS_URL: server.url, CAPFLEET_STORES: all, CAPFLEET_MAX_IMAGE_PIXELS: "1000000" });
  redis = connectRedis(server.url, "patient");
  samples = (await readFile(join(DEMO, "samples.jsonl"), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Sample);
});
afterAll(async () => {
  await sandbox.cleanUp();
  redis.disconnect();
});

const s3Settings = ({ endpoint, accessKeyId, secretAccessKey }: S3Server) => {
  return { endpoint, accessKeyId, secretAccessKey, region: "us-east-1" };
};

/** A worker with the demo's three models, once it is ready. */
async function startWorker(): Promise<Running> {
  const started = sandbox.worker(env, "--models", "demo-caption,demo-vqa,demo-itm");
  await until("the worker", async () => (await liveWorkers(redis)).some(({ pid }) => pid === started.pid));
  return started;
}

const infer = (...args: string[]) => capfleet(env, "infer", ...args);
const picture = (n: number) => join(DEMO, samples[n]!.image);

async function rowOf(...args: string[]): Promise<InferRow & { engines: { model: string }[] }> {
  const { code, stdout, stderr } = await infer(...args, "--json");
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout);
}

// What a real S3 server does not do: it keeps whoever reads from it waiting, until it is let go.
const holding = { asked: 0, answers: [] as (() => void)[] };
async function holdingServer(): Promise<string> {
  const bytes = await readFile(join(DEMO, "images/scene-003.jpg"));
  const server = createServer((_, response) => {
    holding.asked += 1;
    holding.answers.push(() => response.writeHead(200, { etag: '"1"', "content-length": bytes.length }).end(bytes));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  sandbox.atEnd(async () => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("no worker: it says so at once, and which one is missing", async () => {
  const started = performance.now();
  const { code, stdout, stderr } = await infer("caption", picture(0), "--timeout", "600");
  expect(stderr).toMatch(/^NO_WORKER: no live worker runs demo-caption \(int8\)\n/);
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(performance.now() - started).toBeLessThan(60_000);
  expect(await redis.keys(`${redisPrefix()}:infer*`)).toEqual([]);
});

describe("with a worker", () => {
  beforeAll(async () => {
    worker = await startWorker();
  });

  test("every task gives what is true of the picture", async () => {
    const [gray, houses] = [samples[0]!, samples[3]!];
    const caption = await rowOf("caption", picture(3), "--num-beams", "2", "--num-captions", "2");
    expect(caption).toMatchObject({ caption: houses.truth.caption, engines: [{ model: "demo-caption" }] });
    expect(caption.captions).toHaveLength(2);
    const questions = ["--question", houses.question, "--question", "is there a clock?"];
    const { answers } = await rowOf("vqa", picture(3), ...questions);
    expect(answers!.map(({ answer }) => answer)).toEqual([houses.truth.answer, "no"]);
    const texts = ["--text", gray.truth.caption, "--text", houses.truth.caption];
    const { scores } = await rowOf("itm", picture(3), ...texts);
    expect(scores!.map((score) => score > 0.5)).toEqual([false, true]);
    const similar = await rowOf("itc", picture(3), ...texts);
    const vectors = [
      (await rowOf("embed", picture(3))).embedding!,
      (await rowOf("embed", ...texts)).embeddings!,
    ] as const;
    const dots = vectors[1].map((vector) => vector.reduce((sum, x, i) => sum + x * vectors[0][i]!, 0));
    for (const [i, dot] of dots.entries()) expect(similar.scores![i]).toBeCloseTo(dot, 3);
    const cleaned = await rowOf("capfilt", picture(3), "--text", "a clock", "--num-beams", "1");
    expect(cleaned.pairs!.map(({ text, origin, kept }) => [text, origin, kept])).toEqual([
      ["a clock", "web", false],
      [houses.truth.caption, "synthetic", true],
    ]);
    const filtered = await rowOf("filter", picture(3), "--text", houses.truth.caption, "--threshold", "0.9");
    expect(filtered.pairs).toMatchObject([{ origin: "web", kept: true }]);
  });

  test("for people it prints a small table, the best match first", async () => {
    const [gray, houses] = [samples[0]!.truth.caption, samples[3]!.truth.caption];
    const { stdout } = await infer("itm", picture(3), "--text", gray, "--text", houses);
    expect(stdout).toMatch(new RegExp(`^score +text\n0\\.9\\d+ +${houses}\n0\\.0\\d+ +${gray}\n$`));
    const answer = await infer("vqa", picture(3), "--question", samples[3]!.question);
    expect(answer.stdout).toMatch(/^score +answer +question\n-0\.\d+ +1 +how many keys are there\?\n$/);
    const long = await infer("itm", picture(3), "--text", "and a clock ".repeat(200));
    expect(long.stderr).toBe("the text is too long for the model: its end was cut off\n");
    expect(long.code).toBe(0);
  });

  test("a picture, a location or an option that is no good: its code, and nothing crashes", async () => {
    await writeFile(sandbox.path("text.jpg"), "this is no image");
    await writeFile(sandbox.path("empty.jpg"), "");
    await writeFile(sandbox.path("large.jpg"), Buffer.alloc(10 * 1024 * 1024 + 1));
    const bad: [string, number, string[]][] = [
      ["IMAGE_UNREADABLE", 1, ["caption", sandbox.path("text.jpg")]],
      ["IMAGE_EMPTY", 1, ["caption", sandbox.path("empty.jpg")]],
      ["IMAGE_TOO_LARGE", 1, ["caption", sandbox.path("large.jpg")]],
      ["INPUT_NOT_FOUND", 2, ["caption", sandbox.path("nothing.jpg")]],
      ["INPUT_NOT_FOUND", 2, ["caption", sandbox.folder]],
      ["USAGE", 2, ["caption"]],
      ["USAGE", 2, ["embed", picture(3), "--text", "a clock"]],
      ["INVALID_OPTION", 2, ["itm", picture(3), "--text-column", "alt"]],
      ["INVALID_OPTION", 2, ["caption", picture(3), "--prompt", Array(100).fill("dog").join(" ")]],
      ["TASK_UNSUPPORTED", 2, ["caption", picture(3), "--model", "demo-vqa"]],
      ["NO_WORKER", 1, ["caption", picture(3), "--precision", "fp16"]],
    ];
    for (const [expected, exit, args] of bad) {
      const { code, stdout, stderr } = await infer(...args);
      expect({ args, code, stdout, said: stderr.split(":")[0] }).toEqual({
        args,
        code: exit,
        stdout: "",
        said: expected,
      });
    }
    expect(worker.child.exitCode).toBeNull();
  });

  test.skipIf("skipped" in s3Server)("an s3:// location is read by the worker", async () => {
    const { endpoint, region, ...credentials } = s3Settings(s3Server as S3Server);
    const client = new S3Client({ endpoint, region, forcePathStyle: true, credentials });
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
    const Body = await readFile(picture(3));
    await client.send(new PutObjectCommand({ Bucket: bucket, Key: "a b.jpg", Body }));
    client.destroy();
    expect(await rowOf("caption", `s3://${bucket}/a b.jpg`)).toMatchObject({ caption: samples[3]!.truth.caption });
    expect((await infer("caption", `s3://${bucket}/nothing.jpg`)).stderr).toMatch(/^IMAGE_NOT_FOUND: /);
  });

  test("200 requests at once while a job runs: all are right, the job is whole, and nothing is left in Redis", async () => {
    await mkdir(sandbox.path("in"));
    const line = (n: number) => JSON.stringify({ id: String(n), image: picture(n % samples.length) });
    await writeFile(sandbox.path("in/list.jsonl"), Array.from({ length: 2_000 }, (_, n) => line(n)).join("\n"));
    const out = sandbox.path("out");
    await capfleet(env, "submit", "caption", sandbox.path("in/list.jsonl"), "--out", out);
    sandbox.producer(env);
    const models = await demoModels();
    const atWork = async () =>
      (await liveWorkers(redis)).flatMap(({ inFlight }) => inFlight).some(({ rows }) => rows > 0);
    await until("the job to be at work", atWork);

    const client = new InferClient(redis);
    const wrong: string[] = [];
    const ask = async (n: number) => {
      const sample = samples[n % samples.length]!;
      const { task, truth } = questionOf(n, sample);
      const record = { id: String(n), image: null };
      const request = inferRequestOf(task, [models[task.name as Task]!], record, true);
      const row = await client.infer(request, await readFile(join(DEMO, sample.image)), { timeoutMs: 150_000 });
      if (!truth(row)) wrong.push(`${sample.id} ${task.name}: ${JSON.stringify(row)}`);
    };
    await Promise.all(Array.from({ length: 200 }, (_, n) => ask(n)));
    // The model itself is wrong about one answer in 24.
    expect(wrong.filter((what) => !what.includes(" vqa: "))).toEqual([]);
    expect(wrong.length).toBeLessThanOrEqual(Math.ceil(200 / 24));
    // It has not waited for the job.
    const store = storesFromEnv({}).at(`${out}/`);
    expect(await store.stat(layout.success)).toBeNull();
    await client.close();

    await until("the job to finish", () => store.stat(layout.success), 150);
    const { rows } = await expectWhole(store, 2_000);
    for (const [n, { caption }] of rows.entries()) expect(caption).toBe(samples[n % samples.length]!.truth.caption);
    const left = (await redis.keys(`${redisPrefix()}:infer*`)).map((key) => key.split(":").at(-1));
    const perQueue = new Set(["meta", "events", "id", "stalled-check"]);
    expect(left.filter((name) => !perQueue.has(name!))).toEqual([]);
  });

  test("SIGKILL of the worker that has a request: another one answers it", async () => {
    const asked = infer("caption", "s3://held/picture.jpg", "--timeout", "170", "--json");
    await until("the worker to fetch its image", () => holding.asked > 0);
    const other = await startWorker();
    const before = holding.asked;
    await worker.kill("SIGKILL");
    worker = other;
    await until("the other to fetch it", () => holding.asked > before);
    for (const answer of holding.answers) answer();
    const { stdout, stderr } = await asked;
    expect(stderr).toBe("");
    expect(JSON.parse(stdout)).toMatchObject({ caption: samples[3]!.truth.caption });
  });

  test("SIGKILL of the only worker: an error, long before the time is up", async () => {
    const before = holding.asked;
    const asked = infer("caption", "s3://held/picture.jpg", "--timeout", "600");
    await until("the worker to fetch its image", () => holding.asked > before);
    await worker.kill("SIGKILL");
    const { code, stderr } = await asked;
    expect(stderr).toMatch(/^NO_WORKER: /);
    expect(code).toBe(1);
    expect(await redis.exists(keys.inferOpen())).toBe(0);
  });
});

/** The demo's models, by what they do. */
async function demoModels(): Promise<Partial<Record<Task, Model>>> {
  const config = readConfig(env);
  const state = storesFromEnv({}).at(config.state);
  const found = (["caption", "vqa", "itm"] as const).map(async (task) => {
    return [task, await findModel(DEFAULT_MODELS[task], null, state, config)] as const;
  });
  return Object.fromEntries(await Promise.all(found));
}

/** What to ask about a sample, by turns, and whether the answer is true. */
function questionOf(n: number, { alt, question, truth }: Sample) {
  const kinds = [
    {
      task: { name: "caption", decoding: {} },
      truth: ({ caption }: InferRow) => caption === truth.caption,
    },
    {
      task: { name: "vqa", decoding: {}, questions: { given: [question] } },
      truth: ({ answer }: InferRow) => answer === truth.answer,
    },
    {
      task: { name: "itm", texts: { given: [alt] } },
      truth: ({ itm }: InferRow) => itm! > 0.5 === truth.alt_matches,
    },
  ];
  const kind = kinds[n % kinds.length]!;
  return { task: jobTaskSpecSchema.parse(kind.task), truth: kind.truth };
}

/** The submission API, with a real producer, Redis and worker. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ResultRow } from "@capfleet/shared/contract";
import { storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { JobView } from "../../packages/producer/src/api/schemas.ts";
import { type AnswerError, type ApiClient, serving } from "../support/api.ts";
import { capfleet, DEMO, type Running, Sandbox, type TestRedis, until } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";

interface Rows {
  rows: ResultRow[];
  next_cursor: string | null;
}
interface Jobs {
  jobs: JobView[];
  next_cursor: string | null;
}

const IMAGES = join(DEMO, "images");
const stores = storesFromEnv({});

let sandbox: Sandbox;
let redis: TestRedis;
let env: NodeJS.ProcessEnv;
let api: ApiClient;
let producer: Running;
let made = 0;

beforeAll(async () => {
  sandbox = await Sandbox.create();
  redis = await sandbox.redis();
  env = sandbox.env({ CAPFLEET_REDIS_URL: redis.url, CAPFLEET_API_RATE: "100000", CAPFLEET_PRICE_PER_HOUR: "3600" });
  ({ api, producer } = await serving(sandbox, env));
});
afterAll(() => sandbox.cleanUp());

/** A job's body, with an output of its own. */
function body(more: object = {}) {
  made += 1;
  return { task: "caption", input: IMAGES, output: sandbox.path(`out-${made}`), ...more };
}

/** Every page's rows. */
async function allRows(id: string, query: string): Promise<ResultRow[]> {
  const rows: ResultRow[] = [];
  let cursor: string | null = null;
  do {
    const page: Rows = (await api.get<Rows>(`/v1/jobs/${id}/results?${query}${cursor ? `&cursor=${cursor}` : ""}`))
      .body;
    rows.push(...page.rows);
    cursor = page.next_cursor;
  } while (cursor !== null);
  return rows;
}

describe("without a worker", () => {
  test("a job is held, goes on and is ended", async () => {
    const { body: job, status } = await api.submit(body());
    expect(status).toBe(202);
    expect(job).toMatchObject({ state: "planning", task: "caption", models: [{ model: "demo-caption" }] });
    await api.when(job.id, "running");
    expect((await api.get<JobView>(`/v1/jobs/${job.id}`)).body.waiting).toMatch(/no worker for demo-caption/);
    expect((await api.post<JobView>(`/v1/jobs/${job.id}/pause`)).body.state).toBe("paused");
    expect((await api.post<JobView>(`/v1/jobs/${job.id}/resume`)).body.state).toBe("running");
    expect((await api.post<JobView>(`/v1/jobs/${job.id}/cancel`)).body.state).toBe("cancelled");
    for await (const { event, data } of api.events(job.id)) {
      if (event === "end") expect(data.state).toBe("cancelled");
    }
    const again = await api.post<AnswerError>(`/v1/jobs/${job.id}/resume`);
    expect(again).toMatchObject({ status: 409, body: { error: { code: "JOB_STATE" } } });
    expect((await api.post<AnswerError>(`/v1/jobs/${job.id}/retry`)).status).toBe(409);
  });

  test("a key makes one job of many requests, at once, in any order of fields, and after a restart", async () => {
    const asked = body({ limit: 3 });
    const turned = Object.fromEntries(Object.entries(asked).reverse());
    const headers = { "idempotency-key": "nightly 2026-11-25" };
    const answers = await Promise.all(Array.from({ length: 8 }, (_, n) => api.submit(n % 2 ? asked : turned, headers)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([202]));
    const ids = new Set(answers.map(({ body }) => body.id));
    expect(ids.size).toBe(1);

    await producer.kill("SIGKILL");
    ({ api, producer } = await serving(sandbox, env));
    expect(ids).toContain((await api.submit(asked, headers)).body.id);
    const other = await api.submit({ ...asked, limit: 4 }, headers);
    expect(other).toMatchObject({ status: 422, body: { error: { code: "IDEMPOTENCY_CONFLICT" } } });

    // One that was refused may be mended under the same key.
    const mended = { "idempotency-key": "mended" };
    expect((await api.submit({ ...asked, output: IMAGES }, mended)).status).toBe(422);
    expect((await api.submit(body(), mended)).status).toBe(202);
  });

  test("the very same job for the same output is one job, at once and without a key", async () => {
    const asked = body();
    const answers = await Promise.all(Array.from({ length: 6 }, () => api.submit(asked)));
    expect(answers.map(({ status }) => status)).toEqual(Array(6).fill(202));
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
    const other = await api.submit({ ...asked, num_beams: 2 });
    expect(other).toMatchObject({ status: 409, body: { error: { code: "OUTPUT_IN_USE" } } });
  });

  test("jobs come in pages, the newest first, and by state", async () => {
    const { body: whole } = await api.get<Jobs>("/v1/jobs?limit=100");
    const ids = whole.jobs.map(({ id }) => id);
    expect(ids.length).toBeGreaterThan(3);
    expect(ids).toEqual(ids.toSorted().reverse());
    const paged: string[] = [];
    let cursor: string | null = null;
    do {
      const page: Jobs = (await api.get<Jobs>(`/v1/jobs?limit=2${cursor ? `&cursor=${cursor}` : ""}`)).body;
      expect(page.jobs.length).toBeLessThanOrEqual(2);
      paged.push(...page.jobs.map(({ id }) => id));
      cursor = page.next_cursor;
    } while (cursor);
    expect(paged).toEqual(ids);
    const cancelled = (await api.get<Jobs>("/v1/jobs?state=cancelled")).body.jobs;
    expect(cancelled.map(({ state }) => state)).toEqual(["cancelled"]);
  });
});

describe("with a worker", () => {
  beforeAll(() => {
    sandbox.worker(env, "--models", "demo-caption,demo-vqa,demo-itm");
  });

  test("from submission by events to rows, in pages and as a stream", async () => {
    const { body: job } = await api.submit(body({ shard_size: 5 }));
    const seen: JobView[] = [];
    let last = "";
    for await (const { event, data } of api.events(job.id)) {
      seen.push(data);
      last = event;
    }
    expect(last).toBe("end");
    expect(seen.at(-1)).toMatchObject({ state: "finished", counts: { total: 24, done: 24, committed: 24, failed: 0 } });
    // A price of 1 a second.
    expect(seen[0]!.cost).toBeNull();
    const { worker_seconds: seconds, ...cost } = seen.at(-1)!.cost!;
    expect(seconds).toBeGreaterThan(0);
    expect(cost).toEqual({
      spent: expect.closeTo(seconds, 6),
      per_1000: expect.closeTo((seconds / 24) * 1_000, 6),
      estimated: cost.spent,
      is_estimate: false,
    });
    const done = seen.map(({ counts }) => counts.done);
    expect(done).toEqual(done.toSorted((a, b) => a - b));

    const { rows } = await expectWhole(stores.at(job.output), 24);
    expect(await allRows(job.id, "limit=7")).toEqual(rows);
    expect(await allRows(job.id, "limit=1000")).toEqual(rows);
    const download = (await api.get<string>(`/v1/jobs/${job.id}/results?download`)).body;
    expect(
      download
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line)),
    ).toEqual(rows);
    expect(await allRows(job.id, "errors=true")).toEqual([]);
    const kept = await api.get<AnswerError>(`/v1/jobs/${job.id}/results?kept=true`);
    expect(kept).toMatchObject({
      status: 400,
      body: { error: { code: "INVALID_OPTION", message: expect.stringMatching(/^kept: /) } },
    });
    // It has no rows that failed: nothing is done again.
    expect((await api.post<JobView>(`/v1/jobs/${job.id}/retry`)).body.state).toBe("finished");
  });

  test("one image is answered at once: uploaded, or where workers find it", async () => {
    const [sample] = (await readFile(join(DEMO, "samples.jsonl"), "utf8"))
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    const file = join(DEMO, sample.image);
    const uploaded = `data:image/png;base64,${(await readFile(file)).toString("base64")}`;
    await until("the worker", async () => {
      const { body } = await api.get<{ workers: unknown[] }>("/v1/fleet");
      return body.workers.length > 0;
    });
    for (const image of [uploaded, file]) {
      const { status, body } = await api.post<ResultRow>("/v1/infer", { task: "caption", image });
      expect({ status, caption: body.caption }).toEqual({ status: 200, caption: sample.truth.caption });
    }
    const texts = { task: "itm", image: uploaded, text: [sample.truth.caption, "nothing of the kind"] };
    const { scores } = (await api.post<ResultRow>("/v1/infer", texts)).body;
    expect(scores![0]).toBeGreaterThan(0.5);
    expect(scores![1]).toBeLessThan(0.5);
    const embed = (await api.post<ResultRow>("/v1/infer", { task: "embed", text: ["a dog"] })).body;
    expect(embed.embedding!.length).toBeGreaterThan(1);
    const broken = `data:image/png;base64,${Buffer.from("no picture").toString("base64")}`;
    const bad = await api.post<AnswerError>("/v1/infer", { task: "caption", image: broken });
    expect(bad).toMatchObject({ status: 422, body: { error: { code: "IMAGE_UNREADABLE" } } });
    const gone = await api.post<AnswerError>("/v1/infer", { task: "caption", image: sandbox.path("gone.jpg") });
    expect(gone).toMatchObject({ status: 422, body: { error: { code: "IMAGE_NOT_FOUND" } } });
  });

  test("errors, options of other tasks, and texts that were kept", async () => {
    await writeFile(
      sandbox.path("list.jsonl"),
      ['{"image": "no.jpg"}', `{"image": "${IMAGES}/scene-003.jpg"}`].join("\n"),
    );
    const vqa = {
      task: "vqa",
      question: ["is there a dog?"],
      answer: ["yes", "no"],
      input: sandbox.path("list.jsonl"),
    };
    const { body: asked } = await api.submit(body(vqa));
    const { body: cleaned } = await api.submit(
      body({ task: "filter", input: join(DEMO, "samples.jsonl"), text_column: "alt", threshold: 0.9 }),
    );
    await Promise.all([api.when(asked.id, "finished"), api.when(cleaned.id, "finished")]);
    const failed = await allRows(asked.id, "errors=true&limit=1");
    expect(failed).toMatchObject([{ image: expect.stringMatching(/no\.jpg$/), error: { code: "IMAGE_NOT_FOUND" } }]);
    const [, answered] = await allRows(asked.id, "");
    expect(["yes", "no"]).toContain(answered!.answer);
    const texts = await allRows(cleaned.id, "kept=true&limit=5");
    expect(texts.length).toBeGreaterThan(5);
    for (const row of texts) expect(row).toMatchObject({ text: expect.any(String), origin: "web" });
    const printed = await capfleet(env, "results", cleaned.id, "--kept");
    expect(texts).toEqual(
      printed.stdout
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line)),
    );
  });

  test("many follow one job, and one who leaves is forgotten", async () => {
    const { body: job } = await api.submit(body({ shard_size: 1 }));
    const leaving = new AbortController();
    const left = expect(async () => {
      for await (const _ of api.events(job.id, leaving.signal)) leaving.abort();
    }).rejects.toThrow(/abort/i);
    const ends = await Promise.all(
      Array.from({ length: 200 }, async () => (await Array.fromAsync(api.events(job.id))).at(-1)),
    );
    expect(new Set(ends.map((end) => `${end?.event} ${end?.data.state}`))).toEqual(new Set(["end finished"]));
    await left;
  });

  test("the fleet, the models, health and figures", async () => {
    const fleet = await until("a live worker", async () => {
      const { body } = await api.get<{ workers: { price_per_hour: number; engines: { model: string }[] }[] }>(
        "/v1/fleet",
      );
      return body.workers.length > 0 ? body : null;
    });
    expect(fleet.workers[0]!.price_per_hour).toBe(3_600);
    expect(fleet.workers[0]!.engines.map(({ model }) => model).sort()).toEqual([
      "demo-caption",
      "demo-itm",
      "demo-vqa",
    ]);
    const { body: models } = await api.get<{ models: { name: string; tasks: string[] }[] }>("/v1/models");
    expect(models.models.find(({ name }) => name === "demo-vqa")).toMatchObject({ tasks: ["vqa"] });
    expect((await api.get("/healthz")).status).toBe(200);
    expect((await api.get("/readyz")).status).toBe(200);
    const names = fleet.workers[0]!.engines.map(({ model }) => model).join(",");
    await until("nothing to be wanted", async () => {
      const { status, body } = await api.get<{ wanted_workers: number }>(`/v1/fleet/wanted?models=${names}`);
      expect(status).toBe(200);
      return body.wanted_workers === 0;
    });
    const misspelt = await api.get<AnswerError>("/v1/fleet/wanted?models=demo-captoin");
    expect(misspelt).toMatchObject({ status: 422, body: { error: { code: "MODEL_NOT_FOUND" } } });
    expect((await api.get("/v1/fleet/wanted?models=demo-vqa,")).status).toBe(400);
    const { body: figures } = await api.get<string>("/metrics");
    expect(figures).toMatch(/^capfleet_workers 1$/m);
    expect(Number(/^capfleet_rows_total\{outcome="labelled"\} (\d+)$/m.exec(figures)![1])).toBeGreaterThan(24);
    expect(figures).toMatch(
      /^capfleet_http_request_duration_seconds_count\{method="POST",route="\/v1\/jobs",status="202"\} \d+$/m,
    );
  });

  test("another producer answers while this one holds the lease", async () => {
    const other = await serving(sandbox, env);
    const { body: job } = await api.submit(body());
    const { data } = (await Array.fromAsync(other.api.events(job.id))).at(-1)!;
    expect(data.state).toBe("finished");
    await other.producer.kill("SIGTERM");
  });

  test("the page of the documentation loads nothing from elsewhere", async () => {
    const page = await api.get<string>("/docs");
    expect(page.status).toBe(200);
    expect(page.headers.get("content-security-policy")).toMatch(/^default-src 'none'; script-src 'self'/);
    expect(page.body).not.toMatch(/(src|href)="(https?:)?\/\//);
    const scripts = [...page.body.matchAll(/src="([^"]+)"/g)].map(([, path]) => path!);
    expect(scripts.length).toBeGreaterThan(1);
    for (const path of scripts) expect((await api.get(path)).status).toBe(200);
    expect((await api.get<string>("/docs/static/swagger-initializer.js")).body).toContain("validatorUrl: null");
  });
});

test("Redis away: jobs are told of from object storage, the fleet is not, and readiness says so", async () => {
  await redis.kill();
  const page = await api.get<Jobs>("/v1/jobs?limit=5");
  expect(page.status).toBe(200);
  expect(page.body.jobs.length).toBe(5);
  for (const path of ["/readyz", "/v1/fleet", "/v1/fleet/wanted?models=demo-caption", "/metrics"]) {
    const answer = await api.get<AnswerError>(path);
    expect(answer).toMatchObject({ status: 503, body: { error: { code: "REDIS_UNREACHABLE", retryable: true } } });
  }
  expect((await api.get("/healthz")).status).toBe(200);
  await redis.start();
  await until("the API to be ready again", async () => (await api.get("/readyz")).status === 200);
});

test("SIGTERM: streams end, the process does, and with 0", async () => {
  const { body: job } = await api.submit(body({ task: "caption", model: "demo-caption", precision: "fp32" }));
  const events = api.events(job.id);
  await events.next();
  producer.child.kill("SIGTERM");
  for await (const { event } of events) expect(event).toBe("progress");
  expect(await producer.ended()).toBe(0);
  expect(producer.stderr).not.toMatch(/ {4}at /);
});

/** Keys: who is let in, and what each sees, reads and writes. With S3, on which prefixes are what teams are given. */
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CreateBucketCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import type { ResultRow } from "@capfleet/shared/contract";
import { connectRedis } from "@capfleet/shared/queues";
import { storesFromEnv } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import type { JobView } from "../../packages/producer/src/api/schemas.ts";
import { createKey, type Scope } from "../../packages/producer/src/keys/api-key.ts";
import { type AnswerError, type ApiClient, serving } from "../support/api.ts";
import { capfleet, DEMO, type Running, Sandbox, until } from "../support/processes.ts";

const found = inject("s3");
const PICTURE = join(DEMO, "images/scene-003.jpg");

let sandbox: Sandbox;
let env: NodeJS.ProcessEnv;
let nobody: ApiClient;
let producer: Running;
let redis: Redis;
const secrets: string[] = [];
const WEBHOOK_SECRET = "webhook-secret-5d0e";
const SCHEDULE_SECRET = "schedule-secret-41bc";
/** Everything that was said to anybody, except a new key to whoever made it. */
const said: string[] = [];
const processes: Running[] = [];
/** Every command that Redis was given. */
const commands: string[] = [];
const bucket = `keys-${process.pid}`;

interface Page {
  jobs: JobView[];
}

/** A command that has nothing to hide. */
async function command(...args: string[]) {
  const done = await capfleet(env, ...args);
  said.push(done.stdout, done.stderr);
  return done;
}

async function newKey(name: string, scope: Scope, read: string[] = [], write: string[] = []) {
  const { id, key } = await createKey({ name, scope, read, write }, storesFromEnv({}).at(sandbox.path("state")));
  secrets.push(key, key.split("_").slice(2).join("_"));
  const client = nobody.as(key);
  await until("the key to be known", async () => (await client.get("/v1/jobs")).status === 200);
  return { id, key, client };
}

beforeAll(async () => {
  sandbox = await Sandbox.create();
  const server = await sandbox.redis("redis-secret-8c1f");
  redis = connectRedis(server.url, "patient");
  const monitor = await redis.monitor();
  monitor.on("monitor", (_, args: string[]) => commands.push(args.join(" ")));
  sandbox.atEnd(async () => {
    monitor.disconnect();
    redis.disconnect();
  });
  const s3 = "endpoint" in found ? found : { endpoint: "", accessKeyId: "", secretAccessKey: "" };
  await mkdir(sandbox.path("shared"));
  env = sandbox.env({
    CAPFLEET_REDIS_URL: server.url,
    CAPFLEET_API_FILES: sandbox.path("shared"),
    CAPFLEET_LOG: "trace",
    AWS_ENDPOINT_URL_S3: s3.endpoint,
    AWS_ACCESS_KEY_ID: s3.accessKeyId,
    AWS_SECRET_ACCESS_KEY: s3.secretAccessKey,
    AWS_REGION: "us-east-1",
    HF_TOKEN: "hub-secret-77ab",
    CAPFLEET_STORES: JSON.stringify([
      { prefix: "s3://elsewhere/", endpoint: s3.endpoint, accessKeyId: "WRONG", secretAccessKey: "stores-secret-19fe" },
    ]),
  });
  secrets.push("redis-secret-8c1f", "hub-secret-77ab", "stores-secret-19fe", s3.secretAccessKey || "none");
  ({ api: nobody, producer } = await serving(sandbox, env));
  processes.push(producer);
});
afterAll(() => sandbox.cleanUp());

test("the first key shuts the door to everybody else on this machine", async () => {
  const { body: job } = await nobody.submit({
    task: "caption",
    input: join(DEMO, "images"),
    output: sandbox.path("own"),
  });
  const { stdout } = await capfleet(env, "keys", "create", "--name", "ops", "--scope", "admin");
  const key = stdout.trim();
  const [, id, ...rest] = key.split("_");
  const secret = rest.join("_");
  secrets.push(key, secret);
  await until("keys to be asked for", async () => (await nobody.get("/v1/jobs")).status === 401);
  const open = ["/healthz", "/readyz", "/openapi.json", "/docs"];
  for (const path of open) expect((await nobody.get(path)).status).toBe(200);
  for (const path of ["/v1/models", "/v1/fleet", "/metrics", "/v1/nothing"]) {
    const answer = await nobody.get<AnswerError>(path);
    expect(answer).toMatchObject({ status: 401, body: { error: { code: "UNAUTHENTICATED" } } });
    expect(answer.headers.get("www-authenticate")).toBe("Bearer");
  }
  const admin = nobody.as(key);
  // Also a job on files that no key could have submitted.
  expect((await admin.get<Page>("/v1/jobs")).body.jobs.map(({ id }) => id)).toEqual([job.id]);
  // Another's secret, and ids of nobody.
  for (const wrong of [`cf_000000000000_${secret}`, `cf_${id}_${"A".repeat(43)}`, `cf_${id}_`, secret, `${key}x`]) {
    expect((await nobody.as(wrong).get("/v1/jobs")).status).toBe(401);
  }
});

test("files of the producer's machine: only below what the operator allows, whoever asks", async () => {
  const { client: admin } = await newKey("files", "admin");
  await mkdir(sandbox.path("shared/in"));
  await mkdir(sandbox.path("private"));
  for (const folder of ["shared/in", "private"]) await cp(PICTURE, sandbox.path(`${folder}/a.jpg`));
  const [input, output] = [sandbox.path("shared/in"), sandbox.path("shared/out")];
  const cases: [string, string][] = [
    [sandbox.path("private"), output],
    [input, sandbox.path("private-out")],
    [`${input}/../../private`, output],
    [`file://${sandbox.path("private")}`, output],
    ["relative/", output],
    [sandbox.path("shared2"), output],
    ["/etc", "/tmp"],
  ];
  for (const [from, to] of cases) {
    const answer = await admin.submit({ task: "caption", input: from, output: to });
    expect({ from, to, ...answer }).toMatchObject({
      from,
      to,
      status: 403,
      body: { error: { code: "LOCATION_FORBIDDEN" } },
    });
  }
  const manifest = sandbox.path("shared/in/list.jsonl");
  const lines = [`${input}/a.jpg`, sandbox.path("private/a.jpg"), "../../private/a.jpg"];
  await writeFile(manifest, lines.map((image) => JSON.stringify({ image })).join("\n"));
  const { status, body: job } = await admin.submit({ task: "caption", input: manifest, output });
  expect(status).toBe(202);
  processes.push(sandbox.worker(env));
  await admin.when(job.id, "finished");
  const { rows } = (await admin.get<{ rows: ResultRow[] }>(`/v1/jobs/${job.id}/results`)).body;
  expect(rows.map(({ error, caption }) => error?.code ?? typeof caption)).toEqual([
    "string",
    "IMAGE_FORBIDDEN",
    "IMAGE_FORBIDDEN",
  ]);
  await writeFile(sandbox.path("shared/in/bad.jsonl"), JSON.stringify({ image: sandbox.path("private/a.jpg") }));
  const bad = await admin.submit({
    task: "caption",
    input: sandbox.path("shared/in/bad.jsonl"),
    output: sandbox.path("shared/bad"),
  });
  expect(bad).toMatchObject({ status: 403, body: { error: { code: "LOCATION_FORBIDDEN" } } });
});

describe.skipIf("skipped" in found)("teams on S3", () => {
  const teams: Record<string, { submit: ApiClient; read: ApiClient; job: JobView; id: string }> = {};

  beforeAll(async () => {
    const { endpoint, accessKeyId, secretAccessKey } = found as Exclude<typeof found, { skipped: string }>;
    const s3 = new S3Client({
      endpoint,
      region: "us-east-1",
      forcePathStyle: true,
      credentials: { accessKeyId, secretAccessKey },
    });
    await s3.send(new CreateBucketCommand({ Bucket: bucket }));
    const put = async (Key: string, Body: Buffer | string) =>
      s3.send(new PutObjectCommand({ Bucket: bucket, Key, Body }));
    const picture = await readFile(PICTURE);
    for (const team of ["a", "b"]) {
      await put(`in/${team}/1.jpg`, picture);
      const write = [`s3://${bucket}/out/${team}`];
      const { id, client: submit } = await newKey(team, "submit", [`s3://${bucket}/in/${team}`], write);
      const { client: read } = await newKey(`${team} looks`, "read", [], write);
      const body = { task: "caption", input: `s3://${bucket}/in/${team}/`, output: `s3://${bucket}/out/${team}/1/` };
      const answer = await submit.submit(body);
      expect(answer.status).toBe(202);
      teams[team] = { submit, read, job: answer.body, id };
    }
    await put(
      "in/a/list.jsonl",
      [
        "s3://BUCKET/in/a/1.jpg",
        "s3://BUCKET/in/b/1.jpg",
        "../b/1.jpg",
        "s3://BUCKET/in/a/../b/1.jpg",
        "file:///etc/hostname",
      ]
        .map((image) => JSON.stringify({ image: image.replace("BUCKET", bucket) }))
        .join("\n"),
    );
    s3.destroy();
  });

  test("each sees its own jobs, and of the others nothing that it could tell from nothing", async () => {
    for (const [mine, other] of [
      [teams.a!, teams.b!],
      [teams.b!, teams.a!],
    ] as const) {
      for (const client of [mine.submit, mine.read]) {
        expect((await client.get<Page>("/v1/jobs")).body.jobs.map(({ id }) => id)).toEqual([mine.job.id]);
        expect((await client.get(`/v1/jobs/${mine.job.id}`)).status).toBe(200);
        for (const path of ["", "/events", "/results", "/results?download"]) {
          const theirs = await client.get<AnswerError>(`/v1/jobs/${other.job.id}${path}`);
          const none = await client.get<AnswerError>(`/v1/jobs/job_01K9ZJ5W3N8Q4T6V7X8Y9Z0A1B${path}`);
          expect(theirs.status).toBe(404);
          const withoutId = (answer: typeof none) => JSON.stringify(answer.body).replace(/job_\w{26}/, "");
          expect(withoutId(theirs)).toBe(withoutId(none));
        }
      }
      for (const action of ["pause", "resume", "cancel", "retry"]) {
        expect((await mine.submit.post(`/v1/jobs/${other.job.id}/${action}`)).status).toBe(404);
        expect(await mine.read.post(`/v1/jobs/${mine.job.id}/${action}`)).toMatchObject({
          status: 403,
          body: { error: { code: "FORBIDDEN" } },
        });
      }
    }
    const body = { task: "caption", input: teams.a!.job.input, output: `s3://${bucket}/out/a/2/` };
    expect(await teams.a!.read.submit(body)).toMatchObject({ status: 403, body: { error: { code: "FORBIDDEN" } } });
  });

  test("schedules and plans: nothing of another team's, not even its name", async () => {
    const [a, b] = [teams.a!, teams.b!];
    const webhook = { url: "https://hooks.invalid/", secret: SCHEDULE_SECRET };
    const job = { task: "caption", input: a.job.input, output: `s3://${bucket}/out/a/nightly/`, webhook };
    const asked = { name: "of-a", cron: "0 2 29 2 *", job };
    expect((await b.submit.post("/v1/schedules", asked)).status).toBe(403);
    expect((await a.read.post("/v1/schedules", asked)).status).toBe(403);
    expect((await a.submit.post("/v1/schedules", asked)).status).toBe(201);
    const names = async (client: ApiClient) =>
      (await client.get<{ schedules: { name: string }[] }>("/v1/schedules")).body.schedules.map(({ name }) => name);
    expect([await names(a.read), await names(b.submit)]).toEqual([["of-a"], []]);
    for (const [method, action] of [
      ["GET", ""],
      ["DELETE", ""],
      ...["run", "pause", "resume"].map((name) => ["POST", `/${name}`]),
    ] as [string, string][]) {
      const [theirs, none] = await Promise.all(
        ["of-a", "of-nobody"].map((name) => b.submit.send<AnswerError>(method, `/v1/schedules/${name}${action}`)),
      );
      expect(theirs!.status).toBe(404);
      expect(theirs!.body.error.message.replace("of-a", "of-nobody")).toBe(none!.body.error.message);
    }
    expect(JSON.parse((await command("schedule", "show", "of-a", "--json")).stdout).job.webhook).toEqual({
      url: webhook.url,
    });

    await a.submit.when(a.job.id, "finished");
    const plan = (client: ApiClient, of: object) => client.post<AnswerError>("/v1/plan", { task: "caption", ...of });
    expect(await plan(b.submit, { input: a.job.input })).toMatchObject({ status: 403 });
    expect(await plan(b.submit, { input: b.job.input, workers: 2 })).toMatchObject({ body: { images: 1, workers: 2 } });
    const planned = await plan(b.read, { images: 1_000 });
    expect(planned.status).toBe(200);
    expect(JSON.stringify(planned.body)).not.toContain("job_");
    expect(await plan(b.read, { images: 1, task: "embed" })).toMatchObject({
      status: 422,
      body: { error: { code: "RATE_UNKNOWN" } },
    });
    expect((await plan(b.read, { images: 1, input: b.job.input })).status).toBe(400);
  });

  test("each reads and writes below its prefixes, however they are spelt", async () => {
    const [input, output] = [`s3://${bucket}/in/a/`, `s3://${bucket}/out/a/3/`];
    const cases: [string, string][] = [
      [`s3://${bucket}/in/b/`, output],
      [`s3://${bucket}/in/`, output],
      [`s3://${bucket}/in/ab/`, output],
      [`s3://${bucket}/in/a/../b/`, output],
      [`s3://${bucket.toUpperCase()}/in/a/`, output],
      [`s3://${bucket}/in/{0..1}/a.tar`, output],
      [input, `s3://${bucket}/out/b/1/`],
      [input, `s3://${bucket}/out/a/../b/1/`],
      [input, `s3://${bucket}/out/ab/`],
      [sandbox.path("shared/in"), output],
      [input, sandbox.path("shared/x")],
    ];
    for (const [from, to] of cases) {
      const answer = await teams.a!.submit.submit({ task: "caption", input: from, output: to });
      expect({ from, to, ...answer }).toMatchObject({
        from,
        to,
        status: 403,
        body: { error: { code: "LOCATION_FORBIDDEN" } },
      });
    }
    for (const image of [
      `s3://${bucket}/in/b/1.jpg`,
      `s3://${bucket}/in/a/../b/1.jpg`,
      sandbox.path("shared/in/1.jpg"),
    ]) {
      const answer = await teams.a!.submit.post("/v1/infer", { task: "caption", image });
      expect({ image, ...answer }).toMatchObject({
        image,
        status: 403,
        body: { error: { code: "LOCATION_FORBIDDEN" } },
      });
    }
    const nowhere = await nobody
      .as(secrets.find((text) => text.startsWith("cf_"))!)
      .submit({ task: "caption", input: "s3://no-such-bucket/in/", output });
    expect(nowhere).toMatchObject({ status: 422, body: { error: { code: "STORE_BUCKET_NOT_FOUND" } } });
    const closed = await nobody
      .as(secrets.find((text) => text.startsWith("cf_"))!)
      .submit({ task: "caption", input: "s3://elsewhere/in/", output });
    expect(closed.body.error.code).toMatch(/^STORE_/);
  });

  test("a manifest of one's own opens nobody else's images", async () => {
    const { submit } = teams.a!;
    const { body: job } = await submit.submit({
      task: "caption",
      input: `s3://${bucket}/in/a/list.jsonl`,
      output: `s3://${bucket}/out/a/4/`,
      webhook: { url: "https://hooks.invalid/", secret: WEBHOOK_SECRET },
    });
    await submit.when(job.id, "finished");
    const { rows } = (await submit.get<{ rows: ResultRow[] }>(`/v1/jobs/${job.id}/results`)).body;
    const codes = rows.map(({ error, caption }) => error?.code ?? typeof caption);
    expect(codes).toEqual(["string", ...Array(4).fill("IMAGE_FORBIDDEN")]);
  });

  test("two teams may choose the same Idempotency-Key", async () => {
    const headers = { "idempotency-key": "1" };
    const ids = ["a", "b"].map(async (team) => {
      const { submit, job } = teams[team]!;
      const body = { task: "caption", input: job.input, output: `s3://${bucket}/out/${team}/5/` };
      const answer = await submit.submit(body, headers);
      expect(answer.status).toBe(202);
      return answer.body.id;
    });
    expect(new Set(await Promise.all(ids)).size).toBe(2);
  });

  test("a revoked key is refused within seconds, for good; the other goes on", async () => {
    const { id, submit } = teams.a!;
    expect(await command("keys", "revoke", id)).toMatchObject({ code: 0 });
    await until("the key to be refused", async () => (await submit.get("/v1/jobs")).status === 401, 10);
    expect((await teams.b!.submit.get("/v1/jobs")).status).toBe(200);
  });
});

test("too many requests of one key are refused; another's are not", async () => {
  const [one, other] = [await newKey("one", "admin"), await newKey("other", "admin")];
  const slow = await serving(sandbox, { ...env, CAPFLEET_API_RATE: "5" });
  const statuses: number[] = [];
  for (let n = 0; n < 7; n++) statuses.push((await slow.api.as(one.key).get("/v1/models")).status);
  expect(statuses).toEqual([200, 200, 200, 200, 200, 429, 429]);
  const refused = await slow.api.as(one.key).get<AnswerError>("/v1/models");
  expect(refused.body.error).toMatchObject({ code: "RATE_LIMITED", retryable: true });
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
  expect((await slow.api.as(other.key).get("/v1/models")).status).toBe(200);
  // Guesses are counted as well.
  for (let n = 0; n < 5; n++) await slow.api.as("cf_wrong").get("/v1/models");
  expect((await slow.api.as("cf_wrong").get("/v1/models")).status).toBe(429);
  await slow.producer.kill("SIGTERM");
});

test("keys are listed without what makes them keys", async () => {
  const text = await command("keys", "list");
  const json = await command("keys", "list", "--json");
  expect(text.stdout).toMatch(/^[0-9a-f]{12} {2}admin {2}ops {2}created /m);
  expect(
    json.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line).scope),
  ).toContain("admin");
  expect(json.stdout).not.toContain("hash");
});

test("no secret is in any log or answer, in what commands print, in Redis, or in object storage but for its own place", async () => {
  for (const args of [
    ["status", "--json"],
    ["doctor", "s3://elsewhere/"],
  ])
    await command(...args);
  const logs = processes.map(({ stdout, stderr }) => stdout + stderr);
  expect(logs[0]).toContain('"route":"/v1/jobs"');
  expect(logs[1]).toContain('"msg":"ready"');
  const places: [string, string][] = [
    ["logs", logs.join("\n")],
    ["answers", nobody.seen.join("\n")],
    ["commands", said.join("\n")],
    ["Redis", commands.join("\n")],
  ];
  expect(commands.some((line) => line.includes("job_"))).toBe(true);
  const s3 = (server: { endpoint: string; accessKeyId: string; secretAccessKey: string }) => {
    const { endpoint, accessKeyId, secretAccessKey } = server;
    return [{ prefix: `s3://${bucket}/`, region: "us-east-1", endpoint, accessKeyId, secretAccessKey }];
  };
  const stores = storesFromEnv("skipped" in found ? {} : { CAPFLEET_STORES: JSON.stringify(s3(found)) });
  const roots = [`${sandbox.folder}/`, ...("skipped" in found ? [] : [`s3://${bucket}/`])];
  for (const root of roots) {
    const store = stores.at(root);
    for await (const { key } of store.list()) places.push([key, (await store.read(key)).bytes.toString("latin1")]);
  }
  stores.close();
  for (const secret of secrets) {
    const found = places.filter(([, text]) => text.includes(secret)).map(([place]) => place);
    expect(found, secret).toEqual([]);
  }
  if ("skipped" in found) return;
  const holds = (secret: string) => places.filter(([, text]) => text.includes(secret)).map(([place]) => place);
  expect(holds(WEBHOOK_SECRET)).toEqual([expect.stringMatching(/^state\/webhooks(-told)?\/job_\w+\.json$/)]);
  expect(holds(SCHEDULE_SECRET)).toEqual(["state/schedules/of-a.json"]);
});

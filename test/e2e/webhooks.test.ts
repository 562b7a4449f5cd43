/** Webhooks, with a real receiver: over TLS, on this machine, which the operator has allowed. */
import { execFileSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:https";
import { join } from "node:path";
import { connectRedis, sendReport } from "@capfleet/shared/queues";
import { storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { JobView } from "../../packages/producer/src/api/schemas.ts";
import { type AnswerError, type ApiClient, serving } from "../support/api.ts";
import { DEMO, freePort, type Running, Sandbox, type TestRedis, until } from "../support/processes.ts";

const SECRET = "a secret of the receiver's";

interface Received {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
  event: { id: string; type: string; created_at: string; job: JobView };
}

let sandbox: Sandbox;
let redis: TestRedis;
let env: NodeJS.ProcessEnv;
let api: ApiClient;
let producer: Running;
let receiver: Server;
let url: string;
const received: Received[] = [];
/** What the receiver answers next; then 204. */
const answers: number[] = [];

beforeAll(async () => {
  sandbox = await Sandbox.create();
  const [key, cert] = [sandbox.path("key.pem"), sandbox.path("cert.pem")];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  const files = ["-keyout", key, "-out", cert];
  execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", ...subject, ...files], {
    stdio: "ignore",
  });
  const port = await freePort();
  url = `https://localhost:${port}/hook?token=in-the-url`;
  receiver = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, async (request, response) => {
    const text = (await Array.fromAsync(request)).join("");
    const status = answers.shift() ?? 204;
    received.push({ status, headers: request.headers, text, event: JSON.parse(text) });
    // A redirect must not be followed.
    response.writeHead(status, { location: "https://localhost:1/" }).end();
  }).listen(port);
  redis = await sandbox.redis();
  env = sandbox.env({
    CAPFLEET_REDIS_URL: redis.url,
    CAPFLEET_WEBHOOK_NETWORKS: "127.0.0.0/8, ::1/128",
    CAPFLEET_LOG: "trace",
    NODE_EXTRA_CA_CERTS: cert,
  });
  ({ api, producer } = await serving(sandbox, env));
});
afterAll(async () => {
  receiver.closeAllConnections();
  receiver.close();
  await sandbox.cleanUp();
});

const body = (name: string, webhook: object) => ({
  ...{ task: "caption", input: join(DEMO, "images"), output: sandbox.path(name), limit: 4, webhook },
});
const told = (job: string, type: string) =>
  received.filter(({ event, status }) => event.job.id === job && event.type === type && status === 204);

test("the end is told until it is heard, signed, under one id, also by the next producer; Redis may be lost", async () => {
  answers.push(500, 302);
  const { status, body: job } = await api.submit(body("told", { url, secret: SECRET }));
  expect(status).toBe(202);
  expect(JSON.stringify(job)).not.toContain("secret");
  await api.post(`/v1/jobs/${job.id}/cancel`);
  await until("the first call", () => received.length > 0);
  await producer.kill("SIGKILL");
  await redis.kill();
  await redis.start();
  ({ api, producer } = await serving(sandbox, env));
  await until("the end to be heard", () => told(job.id, "job.ended").length > 0);

  expect(received.map(({ status }) => status)).toEqual([500, 302, 204]);
  expect(new Set(received.map(({ event }) => event.id)).size).toBe(1);
  const { headers, text, event } = received.at(-1)!;
  expect(event).toMatchObject({ type: "job.ended", job: { id: job.id, state: "cancelled" } });
  const timestamp = headers["capfleet-timestamp"] as string;
  expect(Math.abs(Date.now() / 1_000 - Number(timestamp))).toBeLessThan(120);
  const signature = createHmac("sha256", SECRET).update(`${timestamp}.${text}`).digest("hex");
  expect(headers["capfleet-signature"]).toBe(`sha256=${signature}`);
  // What has been heard is put away.
  const store = storesFromEnv({}).at(sandbox.path("state"));
  await until("the webhook to be put away", () => store.stat(`webhooks-told/${job.id}.json`));
  expect(await store.stat(`webhooks/${job.id}.json`)).toBeNull();
});

test("a job that is blocked is told of, and its end as well; without a secret nothing is signed", async () => {
  const { body: job } = await api.submit(body("blocked", { url }));
  await api.when(job.id, "running");
  // What a worker reports whose store is away.
  const connection = connectRedis(redis.url, "patient");
  const error = {
    outcome: "failed",
    code: "STORE_UNAVAILABLE",
    message: "s3://labels/ answers 503",
  } as const;
  answers.push(500, 503);
  for (let shard = 0; shard < 5; shard++) await sendReport(connection, job.id, { ...error, shard });
  connection.disconnect();
  await until("the block to be told", () => told(job.id, "job.blocked").length > 0);
  const calls = received.filter(({ event }) => event.job.id === job.id);
  expect(calls.map(({ status }) => status)).toEqual([500, 503, 204]);
  expect(told(job.id, "job.blocked")[0]!.event.job).toMatchObject({
    state: "blocked",
    reason: { code: "STORE_UNAVAILABLE" },
  });
  expect(told(job.id, "job.blocked")[0]!.headers["capfleet-signature"]).toBeUndefined();
  const worker = sandbox.worker(env);
  await until("the end to be told", () => told(job.id, "job.ended").length > 0, 120);
  expect(told(job.id, "job.ended")[0]!.event.job.state).toBe("finished");
  await worker.kill("SIGTERM");
});

test("an address that is not public is refused, unless the operator allows it; also behind a name", async () => {
  const apart = { CAPFLEET_STATE: sandbox.path("strict"), CAPFLEET_REDIS_PREFIX: "strict" };
  const strict = await serving(sandbox, { ...env, ...apart, CAPFLEET_WEBHOOK_NETWORKS: "" });
  for (const host of ["127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"]) {
    const refused = await strict.api.post<AnswerError>("/v1/jobs", body("never", { url: `https://${host}/` }));
    expect({ host, ...refused }).toMatchObject({ host, status: 422, body: { error: { code: "WEBHOOK_FORBIDDEN" } } });
  }
  const before = received.length;
  const { body: job } = await strict.api.submit(body("named", { url }));
  await strict.api.post(`/v1/jobs/${job.id}/cancel`);
  await until("the call to be refused", () => /"event":"evt_[^"]*","attempt":1/.test(strict.producer.stderr));
  expect(received.slice(before).filter(({ event }) => event.job.id === job.id)).toEqual([]);
  await strict.producer.kill("SIGTERM");
});

test("neither secret nor URL is in a log or an answer", () => {
  const said = [producer.stderr, producer.stdout, ...api.seen].join("\n");
  expect(producer.stderr).toContain('"msg":"request"');
  expect(said).not.toContain(SECRET);
  expect(said).not.toContain("in-the-url");
});

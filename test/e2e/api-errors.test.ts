/** What the API refuses: each with a code, a status and one shape, and nothing made. Nor does it let in who must stay out. */
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { JobView } from "../../packages/producer/src/api/schemas.ts";
import { type AnswerError, type ApiClient, serving } from "../support/api.ts";
import { capfleet, DEMO, Sandbox } from "../support/processes.ts";

const IMAGES = join(DEMO, "images");

let sandbox: Sandbox;
let env: NodeJS.ProcessEnv;
let api: ApiClient;

beforeAll(async () => {
  sandbox = await Sandbox.create();
  const redis = await sandbox.redis();
  env = sandbox.env({ CAPFLEET_REDIS_URL: redis.url });
  ({ api } = await serving(sandbox, env));
});
afterAll(() => sandbox.cleanUp());

test("bad input is refused with a code, an explanation and a way out, and makes nothing", async () => {
  const fine = { task: "caption", input: IMAGES, output: sandbox.path("never") };
  const cases: [unknown, number, string, RegExp?][] = [
    [{}, 400, "REQUEST_INVALID", /body\.task/],
    [[], 400, "REQUEST_INVALID"],
    [null, 400, "REQUEST_INVALID"],
    ["text", 400, "REQUEST_INVALID"],
    [{ ...fine, input: undefined }, 400, "REQUEST_INVALID", /body\.input/],
    [{ ...fine, models: "x" }, 400, "REQUEST_INVALID", /unknown field "models" \(known: task, model, /],
    [{ ...fine, task: "paint" }, 400, "REQUEST_INVALID", /caption/],
    [{ ...fine, num_beams: 0 }, 400, "REQUEST_INVALID", /body\.num_beams/],
    [{ ...fine, num_beams: "3" }, 400, "REQUEST_INVALID"],
    [{ ...fine, num_beams: 1.5 }, 400, "REQUEST_INVALID"],
    [{ ...fine, prompt: " " }, 400, "REQUEST_INVALID"],
    [{ ...fine, num_captions: 3 }, 400, "INVALID_OPTION", /^num_captions 3 needs num_beams 3 or more, or sample$/],
    [{ ...fine, question: ["what?"] }, 400, "INVALID_OPTION", /^question: the task "caption" has no such option/],
    [{ ...fine, captioner: "demo-caption" }, 400, "INVALID_OPTION", /^captioner: /],
    [{ ...fine, task: "vqa" }, 400, "INVALID_OPTION", /question or question_column/],
    [{ ...fine, max_new_tokens: 500 }, 400, "INVALID_OPTION", /^max_new_tokens 500: demo-caption can make 64/],
    [{ ...fine, image_column: "url" }, 400, "INVALID_OPTION", /^image_column is for manifests/],
    [{ ...fine, model: "demo-itm" }, 422, "TASK_UNSUPPORTED"],
    [
      { ...fine, model: "Salesforce/blip-image-captioning-base" },
      422,
      "MODEL_NOT_FOUND",
      /is bundled, or registered by a worker/,
    ],
    [{ ...fine, model: join(DEMO, "models/demo-caption") }, 422, "MODEL_NOT_FOUND"],
    [{ ...fine, model: "../models/demo-caption" }, 422, "MODEL_NOT_FOUND"],
    [{ ...fine, precision: "int4" }, 400, "INVALID_OPTION", /int4/],
    [{ ...fine, input: "ftp://x/" }, 400, "INVALID_URI"],
    [{ ...fine, input: "a\0b" }, 400, "INVALID_URI"],
    [{ ...fine, input: sandbox.path("nothing") }, 422, "INPUT_NOT_FOUND"],
    [{ ...fine, output: join(IMAGES, "labels") }, 422, "OUTPUT_INSIDE_INPUT"],
    [{ ...fine, output: IMAGES }, 422, "OUTPUT_INSIDE_INPUT"],
    [{ ...fine, output: DEMO }, 409, "OUTPUT_IN_USE"],
    [{ ...fine, webhook: { url: "http://example.com/" } }, 422, "WEBHOOK_FORBIDDEN"],
    [{ ...fine, webhook: { url: "https://127.0.0.1/" } }, 422, "WEBHOOK_FORBIDDEN"],
    [{ ...fine, webhook: { url: "https://a:b@example.com/" } }, 422, "WEBHOOK_FORBIDDEN"],
    [{ ...fine, webhook: { url: "https://example.com/", secret: "short" } }, 400, "REQUEST_INVALID", /webhook\.secret/],
  ];
  for (const [given, status, code, message = /./] of cases) {
    const answer = await api.post<AnswerError>("/v1/jobs", given);
    const seen = { given, status: answer.status, code: answer.body.error?.code };
    expect(seen).toEqual({ given, status, code });
    expect(answer.body.error.message).toMatch(message);
    expect(Object.keys(answer.body.error)).toEqual(["code", "message", "fix", "retryable"]);
    expect(answer.body.error.message).not.toMatch(/--[a-z]/);
  }
  expect((await api.get<{ jobs: JobView[] }>("/v1/jobs")).body.jobs).toEqual([]);
});

test.each([
  ["GET", "/v2/jobs", undefined, {}, 404, "ROUTE_NOT_FOUND"],
  ["DELETE", "/v1/jobs", undefined, {}, 405, "METHOD_NOT_ALLOWED"],
  ["GET", "/v1/jobs/job_01K9ZJ5W3N8Q4T6V7X8Y9Z0A1B/pause", undefined, {}, 405, "METHOD_NOT_ALLOWED"],
  ["GET", "/v1/jobs/job_01K9ZJ5W3N8Q4T6V7X8Y9Z0A1B", undefined, {}, 404, "JOB_NOT_FOUND"],
  ["GET", "/v1/jobs/..%2F..%2Fkeys", undefined, {}, 404, "JOB_NOT_FOUND"],
  ["GET", "/v1/jobs/%00", undefined, {}, 404, "JOB_NOT_FOUND"],
  ["GET", "/v1/jobs/%ff", undefined, {}, 400, "REQUEST_INVALID"],
  ["GET", "/v1/jobs?state=done", undefined, {}, 400, "REQUEST_INVALID"],
  ["GET", "/v1/jobs?limit=0", undefined, {}, 400, "REQUEST_INVALID"],
  ["GET", "/v1/jobs?limit=1&limit=2", undefined, {}, 400, "REQUEST_INVALID"],
  ["GET", "/v1/jobs?page=2", undefined, {}, 400, "REQUEST_INVALID"],
  ["GET", "/v1/jobs?cursor=0", undefined, {}, 400, "REQUEST_INVALID"],
  ["POST", "/v1/jobs", "{", {}, 400, "REQUEST_INVALID"],
  ["POST", "/v1/jobs", "", {}, 400, "REQUEST_INVALID"],
  ["POST", "/v1/jobs", '{"__proto__": {"task": "caption"}}', {}, 400, "REQUEST_INVALID"],
  [
    "POST",
    "/v1/jobs",
    "task=caption",
    { "content-type": "application/x-www-form-urlencoded" },
    415,
    "MEDIA_TYPE_UNSUPPORTED",
  ],
  ["POST", "/v1/jobs", "{}", { "content-type": "text/plain" }, 415, "MEDIA_TYPE_UNSUPPORTED"],
  ["POST", "/v1/jobs", `{"prompt": "${"x".repeat(2 ** 20)}"}`, {}, 413, "BODY_TOO_LARGE"],
  ["POST", "/v1/jobs", "{}", { "idempotency-key": "x".repeat(256) }, 400, "REQUEST_INVALID"],
  ["POST", "/v1/jobs/job_01K9ZJ5W3N8Q4T6V7X8Y9Z0A1B/cancel", undefined, {}, 404, "JOB_NOT_FOUND"],
  ["GET", "/v1/models", undefined, { authorization: "Bearer cf_0123456789ab_nonsense" }, 401, "UNAUTHENTICATED"],
] as const)("wrong request %#: %s %s", async (method, path, text, headers, status, code) => {
  const answer = await api.send<AnswerError>(method, path, text, headers);
  expect(answer.body).toMatchObject({ error: { code } });
  expect(answer.status).toBe(status);
  if (status === 405) expect(answer.headers.get("allow")).toMatch(/GET|POST/);
});

test("one who is still sending too large a body reads the answer, and may ask again", async () => {
  const { port } = new URL(api.url);
  const socket = connect(Number(port), "127.0.0.1");
  const answers = socket.setEncoding("utf8")[Symbol.asyncIterator]();
  const size = 8 * 2 ** 20;
  const head = `host: 127.0.0.1:${port}\r\ncontent-type: application/json\r\ncontent-length: ${size}`;
  socket.write(`POST /v1/jobs HTTP/1.1\r\n${head}\r\n\r\n`);
  expect((await answers.next()).value).toMatch(/^HTTP\/1\.1 413 .*BODY_TOO_LARGE/s);
  socket.write(Buffer.alloc(size, "x"));
  socket.write(`GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\n\r\n`);
  expect((await answers.next()).value).toMatch(/^HTTP\/1\.1 200 /);
  socket.destroy();
});

test("an interactive request that can't be answered is refused at once", async () => {
  const fine = { task: "caption", image: "s3://photos/1.jpg" };
  const cases: [object, number, string, RegExp?][] = [
    [fine, 503, "NO_WORKER", /demo-caption/],
    [{ ...fine, image: undefined }, 400, "INVALID_OPTION", /needs an image/],
    [{ ...fine, image: "data:image/png,abc" }, 400, "REQUEST_INVALID", /base64/],
    [{ ...fine, image: "data:image/png;base64,a-b" }, 400, "REQUEST_INVALID", /base64/],
    [{ ...fine, image: "data:image/png;base64," }, 422, "IMAGE_EMPTY"],
    [{ ...fine, image: `data:;base64,${"A".repeat(14_000_000)}` }, 413, "IMAGE_TOO_LARGE"],
    [{ ...fine, image: "ftp://x/1.jpg" }, 400, "INVALID_URI"],
    [{ ...fine, output: "s3://labels/" }, 400, "REQUEST_INVALID", /unknown field "output"/],
    [{ ...fine, question: ["what?"] }, 400, "INVALID_OPTION", /^question: the task "caption"/],
    [{ ...fine, task: "vqa" }, 400, "INVALID_OPTION", /question/],
    [{ ...fine, timeout_seconds: 0 }, 400, "REQUEST_INVALID", /timeout_seconds/],
    [{ ...fine, model: "demo-itm" }, 422, "TASK_UNSUPPORTED"],
  ];
  for (const [given, status, code, message = /./] of cases) {
    const answer = await api.post<AnswerError>("/v1/infer", given);
    expect({ status: answer.status, code: answer.body.error?.code }).toEqual({ status, code });
    expect(answer.body.error.message).toMatch(message);
  }
});

test("what is not HTTP gets an answer of the same shape", async () => {
  const { port } = new URL(api.url);
  const socket = connect(Number(port), "127.0.0.1");
  socket.end("NONSENSE\r\n\r\n");
  const text = (await Array.fromAsync(socket)).join("");
  expect(text).toMatch(/^HTTP\/1\.1 400 /);
  expect(JSON.parse(text.split("\r\n\r\n")[1]!).error.code).toBe("REQUEST_INVALID");
});

test("without keys, only this machine's own names and pages are let in", async () => {
  const { port, host } = new URL(api.url);
  // fetch does not let anybody choose these headers.
  const status = (headers: Record<string, string>) =>
    new Promise((resolve, reject) => {
      request({ port, host: "127.0.0.1", path: "/v1/jobs", headers }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      })
        .on("error", reject)
        .end();
    });
  expect(await status({ host })).toBe(200);
  expect(await status({ host: `localhost:${port}` })).toBe(200);
  expect(await status({ host: "evil.example" })).toBe(403);
  expect(await status({ host: `127.0.0.1.evil.example:${port}` })).toBe(403);
  expect(await status({ host, origin: `http://${host}` })).toBe(200);
  expect(await status({ host, origin: "https://evil.example" })).toBe(403);
  expect(await status({ host, origin: "null" })).toBe(403);
  expect(await status({ host, "sec-fetch-site": "cross-site" })).toBe(403);
});

test("more than this machine needs a key", async () => {
  const { code, stderr } = await capfleet(env, "serve", "--host", "0.0.0.0");
  expect(stderr).toMatch(/^KEYS_REQUIRED: 0\.0\.0\.0/m);
  expect(code).toBe(2);
});

test("a port that is taken is named", async () => {
  const { code, stderr } = await capfleet(env, "serve", "--port", new URL(api.url).port);
  expect(stderr).toMatch(/^ADDRESS_UNAVAILABLE: can't listen at 127\.0\.0\.1:\d+ \(EADDRINUSE\)/m);
  expect(code).toBe(1);
});

/**
 * Requests that nobody wrote: made from /openapi.json, as it asks and as it does not. Whatever comes, the answer is one that
 * the document has, in the form that it gives, and never a 5xx.
 */
import type { JobState } from "@capfleet/shared/contract";
import { storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ZodType } from "zod";
import { type AnswerError, type ApiClient, serving } from "../support/api.ts";
import { Generator, type OpenApi, type Operation, operationsOf, validatorOf } from "../support/openapi.ts";
import { DEMO, type Running, Sandbox } from "../support/processes.ts";

const SEED = Number(process.env.CAPFLEET_TEST_SEED ?? 20261125);
const REQUESTS = 800;

let sandbox: Sandbox;
let api: ApiClient;
let producer: Running;
let document: OpenApi;
const validators = new Map<string, ZodType>();

beforeAll(async () => {
  sandbox = await Sandbox.create();
  const redis = await sandbox.redis();
  const env = sandbox.env({ CAPFLEET_REDIS_URL: redis.url, CAPFLEET_API_RATE: "1000000" });
  ({ api, producer } = await serving(sandbox, env));
  document = (await api.get<OpenApi>("/openapi.json")).body;
});
afterAll(() => sandbox.cleanUp());

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Throws where the document has no such answer, or another form for it. */
function expectDocumented(operation: Operation, status: number, type: string, body: unknown): void {
  const name = `${operation.method} ${operation.path} ${status} ${type}`;
  const answers = operation.answers[String(status)];
  if (status === 204) return void expect([answers, body], name).toEqual([{}, ""]);
  const schema = answers?.[type];
  expect(schema, `${name} stands in the document`).toBeDefined();
  if (type !== "application/json") return;
  const validator = validators.get(name) ?? validatorOf(schema!, document);
  validators.set(name, validator);
  const parsed = validator.safeParse(body);
  expect(parsed.error?.issues ?? [], `${name}: ${JSON.stringify(body)}`).toEqual([]);
}

test("the document is OpenAPI 3.1 and has every route", () => {
  expect(document.openapi).toMatch(/^3\.1\./);
  const names = operationsOf(document).map(({ method, path }) => `${method} ${path}`);
  expect(names.sort()).toEqual(
    [
      ...[
        "POST /v1/jobs",
        "GET /v1/jobs",
        "GET /v1/jobs/{id}",
        "GET /v1/jobs/{id}/events",
        "GET /v1/jobs/{id}/results",
        "GET /v1/jobs/{id}/thumbnail",
        "POST /v1/infer",
        "POST /v1/plan",
      ],
      ...["GET", "POST"].map((method) => `${method} /v1/schedules`),
      ...["GET", "DELETE"].map((method) => `${method} /v1/schedules/{name}`),
      ...["run", "pause", "resume"].map((action) => `POST /v1/schedules/{name}/${action}`),
      ...["pause", "resume", "cancel", "retry"].map((action) => `POST /v1/jobs/{id}/${action}`),
      ...["GET /v1/models", "GET /v1/fleet", "GET /v1/fleet/history", "GET /v1/fleet/wanted"],
      ...["GET /healthz", "GET /readyz", "GET /metrics"],
    ].sort(),
  );
});

test("a validator made from the document refuses what is not in it", () => {
  const { answers } = operationsOf(document).find(({ method, path }) => `${method} ${path}` === "GET /v1/jobs/{id}")!;
  const validator = validatorOf(answers["404"]!["application/json"]!, document);
  const error = { code: "X", message: "", fix: "", retryable: false };
  expect(validator.safeParse({ error }).success).toBe(true);
  expect(validator.safeParse({ error: { ...error, stack: "at" } }).success).toBe(false);
  expect(validator.safeParse({}).success).toBe(false);
});

test(`${REQUESTS} requests, seed ${SEED}`, { timeout: 120_000 }, async () => {
  const make = new Generator(document, SEED);
  const operations = operationsOf(document).filter(({ path }) => !path.endsWith("/events"));
  const jobs: string[] = [];
  const schedules = new Set<string>();
  const statuses = new Map<number, number>();
  for (let n = 0; n < REQUESTS; n++) {
    const submission = operations.find(({ method, path }) => method === "POST" && path === "/v1/jobs")!;
    const operation = make.random() < 0.5 ? submission : make.pick(operations);
    const spoil = make.pick([0, 0, 0.1, 0.5]);
    const id = jobs.length > 0 && make.random() < 0.7 ? make.pick(jobs) : String(make.value({ type: "string" }, spoil));
    const name = schedules.size > 0 && make.random() < 0.7 ? make.pick([...schedules]) : id;
    let path = operation.path
      .replace("{id}", encodeURIComponent(id.toWellFormed()) || "x")
      .replace("{name}", encodeURIComponent(name.toWellFormed()) || "x");
    const query = new URLSearchParams();
    const headers: Record<string, string> = {};
    for (const { name, in: place, schema } of operation.parameters) {
      if (place === "path" || make.random() < 0.5) continue;
      const text = String(make.value(schema, spoil)).toWellFormed();
      if (place === "query") query.append(name, text);
      else headers[name] = encodeURIComponent(text).slice(0, 400) || "x";
    }
    if (query.size > 0) path += `?${query}`;
    const body = operation.body && make.value(operation.body, spoil);
    // A part of them are such that there is something to do.
    const isScheduled = operation.path === "/v1/schedules";
    if (isScheduled && isObject(body) && make.random() < 0.5) body.job = { task: "caption" };
    const job = isScheduled && isObject(body) ? body.job : body;
    if (["/v1/jobs", "/v1/plan", "/v1/schedules"].includes(operation.path) && isObject(job)) {
      // Stores that are not there are another test's.
      if (typeof job.input !== "string" || job.input.startsWith("s3:") || make.random() < 0.8)
        job.input = `${DEMO}images`;
      // A schedule may start jobs by itself: they are told apart by where they are.
      const place = sandbox.path(`${isScheduled ? "scheduled" : "out"}-${make.below(30)}`);
      const isElsewhere = typeof job.output !== "string" || job.output.startsWith("s3:") || make.random() < 0.8;
      if (operation.path !== "/v1/plan" && (isScheduled || isElsewhere)) job.output = place;
    }
    const text = body === null ? undefined : JSON.stringify(body);
    const answer = await api.send<{ id?: string; name?: string } & Partial<AnswerError>>(
      operation.method,
      path,
      text,
      headers,
    );
    const type = answer.headers.get("content-type")?.split(";")[0] ?? "";
    const asked = `${operation.method} ${path} ${text}: ${JSON.stringify(answer.body)}`;
    // No worker is there to ask about a picture.
    if (answer.body?.error?.code !== "NO_WORKER") expect(answer.status, asked).toBeLessThan(500);
    expectDocumented(operation, answer.status, type, answer.body);
    statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
    if (answer.status === 202) jobs.push(answer.body.id!);
    if (answer.status === 201) schedules.add(answer.body.name!);
    if (answer.status === 204) schedules.delete(name);
  }
  // It was not all of one kind.
  expect(new Set(jobs).size).toBeGreaterThan(4);
  for (const status of [200, 202, 400, 404, 409, 422])
    expect(statuses.get(status) ?? 0, `${status}`).toBeGreaterThan(4);
  for (const status of [201, 204]) expect(statuses.get(status) ?? 0, `${status}`).toBeGreaterThan(0);
  expect(producer.child.exitCode).toBeNull();
  expect(producer.stderr).not.toContain('"level":50');
  // What was refused has made nothing.
  const state = storesFromEnv({}).at(`${sandbox.folder}/state/`);
  const there: JobState[] = [];
  for await (const { key } of state.list({ prefix: "jobs/" }))
    there.push(JSON.parse((await state.read(key)).bytes.toString("utf8")));
  const submitted = there.filter(({ out }) => !out.includes("/scheduled-"));
  expect(submitted.map(({ id }) => id).sort()).toEqual([...new Set(jobs)].sort());
  const names = (await Array.fromAsync(state.list({ prefix: "schedules/" }))).map(({ key }) => key);
  expect(names.sort()).toEqual([...schedules].map((name) => `schedules/${name}.json`).sort());
});

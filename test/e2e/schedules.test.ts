/** Schedules as a user types them, with a real producer and a real worker: nights that were missed, asked for, paused. */
import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ResultRow } from "@capfleet/shared/contract";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Schedule } from "../../packages/producer/src/schedules/schedule.ts";
import { type AnswerError, ApiClient } from "../support/api.ts";
import { capfleet, DEMO, type Running, Sandbox, until } from "../support/processes.ts";

interface ScheduleView {
  name: string;
  next_due_at: string | null;
  runs: { job_id: string | null; outcome: string | null; rows: number | null }[];
}

const HOUR = 3_600_000;
let sandbox: Sandbox;
let env: NodeJS.ProcessEnv;
let photos: string;
let labels: string;
let producer: Running;

beforeAll(async () => {
  sandbox = await Sandbox.create();
  const redis = await sandbox.redis();
  env = sandbox.env({ CAPFLEET_REDIS_URL: redis.url });
  photos = sandbox.path("photos");
  labels = sandbox.path("labels");
  await mkdir(photos);
  await copyFile(picture(3), join(photos, "a.jpg"));
  await copyFile(picture(4), join(photos, "b.jpg"));
  sandbox.worker(env);
});
afterAll(() => sandbox.cleanUp());

const picture = (n: number) => join(DEMO, `images/scene-${String(n).padStart(3, "0")}.jpg`);
const schedule = (...args: string[]) => capfleet(env, "schedule", ...args);
const fileOf = (name: string) => sandbox.path(`state/schedules/${name}.json`);

/** Runs a command that has to succeed; returns what it prints. */
async function done(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await capfleet(env, ...args);
  if (code !== 0) throw new Error(`capfleet ${args.join(" ")}: exit code ${code}: ${stderr}`);
  return stdout;
}

async function show(name: string): Promise<Schedule> {
  return JSON.parse(await done("schedule", "show", name, "--json"));
}

/** The schedule once it has so many runs behind it, and none under way. */
const afterRuns = (name: string, runs: number) =>
  until(`${runs} runs of ${name}`, async () => {
    const seen: Schedule = JSON.parse(await readFile(fileOf(name), "utf8"));
    return seen.runs.length >= runs && !seen.run && !seen.asked ? seen : null;
  });

/** As if the schedule were so old, and no producer had been there since. Only while none is. */
async function backdate(name: string, ms: number): Promise<void> {
  const seen: Schedule = JSON.parse(await readFile(fileOf(name), "utf8"));
  const before = new Date(Date.now() - ms).toISOString();
  await writeFile(fileOf(name), JSON.stringify({ ...seen, created: before, handled: before }));
}

test("nights that were missed run once when the producer is back, whatever happens to it then", async () => {
  const command = ["caption", photos, "--out", labels, "--incremental", "--lane", "bulk"];
  const made = await done(
    "schedule",
    "create",
    "nightly",
    "--cron",
    "0 2 * * *",
    "--tz",
    "Europe/Berlin",
    "--",
    ...command,
  );
  expect(made).toMatch(/^created nightly; next 20\d\d-\d\d-\d\d 02:00\n$/);
  expect(await done("schedule", "list")).toMatch(
    /^nightly {2}0 2 \* \* \* \(Europe\/Berlin\) {2}next .* 02:00 {2}caption/,
  );
  await backdate("nightly", 4 * 24 * HOUR);
  const killed = sandbox.producer(env);
  await until("the run", async () => JSON.parse(await readFile(fileOf("nightly"), "utf8")).run);
  await killed.kill("SIGKILL");
  producer = sandbox.producer(env);
  const { runs } = await afterRuns("nightly", 1);
  expect(runs).toMatchObject([{ outcome: "finished", rows: 2, failed: 0, asked: false, error: null }]);
  expect(await readdir(join(labels, "runs"))).toHaveLength(1);
  const rows = (await done("results", labels)).trimEnd().split("\n");
  expect(rows.map((line) => (JSON.parse(line) as ResultRow).id)).toEqual(["a.jpg", "b.jpg"]);
  const shown = await done("schedule", "show", "nightly");
  expect(shown).toContain(`  job      ${command.join(" ")}\n`);
  expect(shown).toMatch(/^ {2}20\d\d-\d\d-\d\d 02:00 {2}finished {2}2 rows {2}job_\w{26}$/m);
});

test("a run that is asked for twice at once is one; without anything new it says so", async () => {
  // Neither may have ended before the other is asked for.
  await producer.kill("SIGTERM");
  const asked = await Promise.all([1, 2].map(() => schedule("run", "nightly")));
  expect(asked.map(({ code }) => code)).toEqual([0, 0]);
  expect(await done("schedule", "list")).toContain("asked for; waits for `capfleet serve`");
  producer = sandbox.producer(env);
  const { runs } = await afterRuns("nightly", 2);
  expect(runs).toHaveLength(2);
  expect(runs[1]).toMatchObject({ outcome: "nothing new", asked: true, job: null });
  await copyFile(picture(5), join(photos, "c.jpg"));
  await done("schedule", "run", "nightly");
  const outcomes = (await afterRuns("nightly", 3)).runs.map(({ outcome, rows }) => [outcome, rows]);
  expect(outcomes).toEqual([
    ["finished", 2],
    ["nothing new", null],
    ["finished", 1],
  ]);
  expect(await readdir(join(labels, "runs"))).toHaveLength(2);
});

test("paused it starts nothing by itself; deleted, its dataset stays", async () => {
  expect(await done("schedule", "pause", "nightly")).toBe("paused nightly\n");
  expect(await done("schedule", "list")).toMatch(/^nightly .* {2}paused {2}/);
  await producer.kill("SIGTERM");
  await backdate("nightly", 2 * 24 * HOUR);
  const before = (await show("nightly")).runs.length;
  // Another one, which is due as well: when it has run, both have been looked at.
  await done(
    "schedule",
    "create",
    "other",
    "--cron",
    "0 2 * * *",
    "--",
    "caption",
    photos,
    "--out",
    sandbox.path("other"),
  );
  await backdate("other", 2 * 24 * HOUR);
  producer = sandbox.producer(env);
  await afterRuns("other", 1);
  expect((await show("nightly")).runs).toHaveLength(before);
  expect(await done("schedule", "resume", "nightly")).toMatch(/^resumed nightly; next .* 02:00\n$/);
  const out = sandbox.path("other/runs");
  for (const run of await readdir(out)) expect(await readdir(join(out, run))).toContain("_SUCCESS");

  expect(await done("schedule", "delete", "nightly")).toContain("what its runs have written stays");
  expect((await done("results", labels)).trimEnd().split("\n")).toHaveLength(3);
  expect(await schedule("show", "nightly")).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/^SCHEDULE_NOT_FOUND/),
  });
});

test("over HTTP: runs of a dataset, and a schedule of them, which the command line sees too", async () => {
  const url = await until("the API", () => /"api":"([^"]+)"/.exec(producer.stderr)?.[1]);
  const api = new ApiClient(url);
  const job = { task: "caption", input: photos, output: sandbox.path("web"), incremental: true };
  const first = await api.submit(job, { "idempotency-key": "first" });
  expect(first.status).toBe(202);
  await api.when(first.body.id, "finished");
  for (const key of ["second", "second", "first"]) {
    const again = await api.submit(job, { "idempotency-key": key });
    expect([key, again.status, again.body.id]).toEqual([key, key === "first" ? 202 : 200, first.body.id]);
  }

  const asked = { name: "web", cron: "0 2 * * *", time_zone: "Europe/Berlin", job };
  const made = await api.post<ScheduleView>("/v1/schedules", asked);
  expect(made).toMatchObject({ status: 201, body: { name: "web", state: "active", incremental: true, runs: [] } });
  expect(made.body.next_due_at).toMatch(/T0[01]:00:00\.000Z$/);
  expect((await api.post("/v1/schedules", asked)).status).toBe(409);
  const wrong = await api.post<AnswerError>("/v1/schedules", { ...asked, name: "b", time_zone: "Nowhere" });
  expect(wrong).toMatchObject({
    status: 400,
    body: { error: { message: expect.stringMatching(/^time_zone "Nowhere"/) } },
  });
  expect(await done("schedule", "show", "web")).toContain(
    `caption  file://${photos}/ → file://${job.output}/  incremental`,
  );

  const at = "/v1/schedules/web";
  expect((await api.post<ScheduleView>(`${at}/run`)).body.runs[0]).toMatchObject({ outcome: null });
  const ran = await until("its run", async () => {
    const { runs } = (await api.get<ScheduleView>(at)).body;
    return runs[0]?.outcome ? runs : null;
  });
  expect(ran).toMatchObject([{ outcome: "nothing_new", job_id: null, rows: null, error: null }]);
  expect((await api.post(`${at}/pause`)).body).toMatchObject({ state: "paused", next_due_at: null });
  expect((await api.post(`${at}/resume`)).body).toMatchObject({ state: "active", next_due_at: expect.any(String) });
  const list = (await api.get<{ schedules: ScheduleView[] }>("/v1/schedules")).body.schedules;
  expect(list.map(({ name, runs }) => [name, runs[0]?.outcome])).toEqual([
    ["other", "finished"],
    ["web", "nothing_new"],
  ]);
  expect(list[0]!.runs[0]).toMatchObject({ job_id: expect.stringMatching(/^job_/), rows: 3, failed: 0 });
  expect((await api.send("DELETE", at)).status).toBe(204);
  expect(await api.get(at)).toMatchObject({ status: 404, body: { error: { code: "SCHEDULE_NOT_FOUND" } } });
});

test("what is wrong is said at once, with exit code 2, and nothing is created", async () => {
  await writeFile(sandbox.path("bad.csv"), "id,picture\n1,photos/a.jpg\n");
  const timing = ["--cron", "0 2 * * *"];
  const job = ["--", "caption", photos, "--out", sandbox.path("o")];
  const cases: [string, ...string[]][] = [
    ["INVALID_OPTION", "Nightly!", ...timing, ...job],
    ["INVALID_OPTION", "n", "--cron", "0 2 30 2 *", ...job],
    ["USAGE", "n", ...timing, "--", "caption", photos],
    ["USAGE", "n", ...timing, ...job, "--wait"],
    ["INVALID_OPTION", "n", ...timing, ...job, "--question", "what?"],
    ["MANIFEST_INVALID", "n", ...timing, "--", "caption", sandbox.path("bad.csv"), "--out", sandbox.path("o")],
    ["SCHEDULE_EXISTS", "other", ...timing, ...job],
  ];
  for (const [expected, ...args] of cases) {
    const { code, stdout, stderr } = await schedule("create", ...args);
    expect({ args, code, stdout, error: stderr.split(":")[0] }).toEqual({ args, code: 2, stdout: "", error: expected });
    expect(stderr).not.toMatch(/^ {4}at /m);
  }
  expect(await readdir(sandbox.path("state/schedules"))).toEqual(["other.json"]);
  expect(await readdir(sandbox.folder)).not.toContain("o");
});

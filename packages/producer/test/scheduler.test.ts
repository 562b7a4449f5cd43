/** Schedules and a producer that may die at any of its writes. Jobs are labelled as in incremental-world.ts. */
import { readConfig } from "@capfleet/shared/config";
import { createLog } from "@capfleet/shared/log";
import { findModel } from "@capfleet/shared/models";
import type { Stores } from "@capfleet/shared/storage";
import { afterAll, beforeEach, expect, test } from "vitest";
import { backends } from "../../shared/test/storage/backends.ts";
import type { Context } from "../src/cli/context.ts";
import { listRuns } from "../src/incremental/root.ts";
import { askedJob, type JobOptions } from "../src/jobs/asked-job.ts";
import { readJobFile } from "../src/jobs/create.ts";
import { createSchedule } from "../src/schedules/create.ts";
import { ask, resumed } from "../src/schedules/run.ts";
import { type Schedule, Schedules } from "../src/schedules/schedule.ts";
import { Scheduler } from "../src/schedules/scheduler.ts";
import { readWebhook } from "../src/webhooks/webhook.ts";
import { World, watched } from "./incremental-world.ts";

const backend = backends().find(({ name }) => name === "files")!;
afterAll(() => backend.close());

const HOUR = 3_600_000;
/** Before the first night; due times are 01:00 UTC, as it is winter in Berlin. */
const EVENING = Date.parse("2026-11-25T20:00:00Z");
const night = (n: number) => new Date(Date.parse("2026-11-26T01:00:00Z") + n * 24 * HOUR).toISOString();
const WEBHOOK = { url: "https://example.com/hook", secret: "a secret of many characters" };
const TIMING = { cron: "0 2 * * *", timeZone: "Europe/Berlin" };

let world: World;
let now: number;

beforeEach(async () => {
  world = await World.create(backend, { "a.jpg": "a", "b.jpg": "b" });
  now = EVENING;
});

function surroundings(stores: Stores = world.stores): Context {
  const config = readConfig();
  const state = stores.at(`${world.uri}state/`);
  return { stores, state, states: world.states(stores), config, log: createLog("producer", "silent") };
}

function create(options: Partial<JobOptions> = {}, name = "nightly", input = `${world.uri}in/`) {
  const asked = askedJob("caption", input, { out: `${world.uri}out/`, incremental: true, ...options }, "fleet");
  const { state, stores, config } = surroundings();
  const find = (model: string) => findModel(model, null, state, config);
  return createSchedule(
    { name, ...TIMING, command: [], asked, webhook: WEBHOOK },
    { state, stores, findModel: find },
    now,
  );
}

const producer = (stores?: Stores) => new Scheduler({ ...surroundings(stores), clock: () => now });
const schedules = () => new Schedules(surroundings().state);
const read = async (name = "nightly"): Promise<Schedule> => (await schedules().read(name)).schedule;
const jobs = () => Array.fromAsync(world.states().all());

/** What the fleet does with the run under way. */
async function endRun(ended: "finished" | "failed" = "finished"): Promise<void> {
  const { job, out } = (await read()).run!;
  const file = (await readJobFile(world.stores.at(out!)))!;
  const created = { file, out: out!, state: (await world.states().find(job!))!, existed: true };
  await world.end(created, ended === "finished" ? await world.label(created) : 0, ended);
}

test("a night runs when it is due and not before; the next one finds nothing new, or what is new", async () => {
  await create();
  const serve = producer();
  now = Date.parse(night(0)) - 1;
  await serve.look();
  expect(await read()).toMatchObject({ run: null, runs: [] });
  now += 1;
  await serve.look();
  expect((await read()).run).toMatchObject({ due: night(0), name: "2026-11-26T01-00-00Z", asked: false });
  await endRun();
  await serve.look();
  expect(await read()).toMatchObject({
    run: null,
    runs: [{ due: night(0), outcome: "finished", rows: 2, failed: 0, error: null }],
  });
  now = Date.parse(night(1));
  await serve.look();
  await world.source.put("c.jpg", "c");
  now = Date.parse(night(2));
  await serve.look();
  await endRun("failed");
  await serve.look();
  const { run, runs } = await read();
  expect(run).toBeNull();
  expect(runs.map(({ due, outcome }) => [due, outcome])).toEqual([
    [night(0), "finished"],
    [night(1), "nothing new"],
    [night(2), "failed"],
  ]);
  expect(await listRuns(world.root)).toEqual(["2026-11-26T01-00-00Z", "2026-11-28T01-00-00Z"]);
});

test("several missed nights are one run; nights that pass while it is under way are one more", async () => {
  await create();
  now = Date.parse(night(4)) + HOUR;
  const serve = producer();
  await serve.look();
  expect((await read()).run).toMatchObject({ due: night(4), name: "2026-11-30T01-00-00Z" });
  now = Date.parse(night(6)) + HOUR;
  await serve.look();
  await producer().look();
  expect(await jobs()).toHaveLength(1);
  await endRun();
  await serve.look();
  await serve.look();
  expect((await read()).runs.map(({ due }) => due)).toEqual([night(4), night(6)]);
});

for (const incremental of [true, false]) {
  const kind = incremental ? "a run of a dataset" : "a job of its own";
  test.each(["before", "after"] as const)(`${kind}, started by a producer killed %s each write`, async (when) => {
    for (let at = 1; ; at++) {
      world = await World.create(backend, { "a.jpg": "a" });
      now = EVENING;
      await create({ incremental });
      now = Date.parse(night(0));
      let died = false;
      const { stores } = watched(world.stores, (write, moment) => {
        const isIt = write === at && moment === when;
        died ||= isIt;
        return isIt;
      });
      await producer(stores).look();
      if (!died) {
        // begun, (claimed,) job.json, state, webhook, started
        expect(at).toBe(incremental ? 7 : 6);
        break;
      }
      // Back after two more nights: theirs are the same run.
      now = Date.parse(night(2)) + 1;
      const serve = producer();
      await serve.look();
      const { run } = await read();
      expect(run!.job).not.toBeNull();
      expect(await jobs()).toEqual([expect.objectContaining({ id: run!.job })]);
      expect((await readWebhook(run!.job!, surroundings().state)).webhook).toMatchObject(WEBHOOK);
      expect(await listRuns(world.root)).toEqual([run!.name]);
      if (!incremental) continue;
      await endRun();
      await serve.look();
      await serve.look();
      const { runs } = await read();
      expect(runs.filter(({ outcome }) => outcome === "finished")).toHaveLength(1);
      expect(await jobs()).toHaveLength(1);
    }
  });
}

test.each([
  ["a run of a dataset", true],
  ["a job of its own", false],
])("%s that was begun and never started is all missed nights' when the producer is back", async (_, incremental) => {
  await create({ incremental });
  now = Date.parse(night(0));
  const dying = watched(world.stores, (write, when) => write === 1 && when === "after");
  await producer(dying.stores).look();
  expect(await read()).toMatchObject({ handled: night(0), run: { due: night(0), job: null } });
  now = Date.parse(night(3)) + 1;
  const serve = producer();
  await serve.look();
  const { job } = (await read()).run!;
  await world.states().update(job!, (state) => ({ ...state, ended: "cancelled" }));
  await serve.look();
  await serve.look();
  expect(await read()).toMatchObject({ handled: night(3), run: null, runs: [{ due: night(0), outcome: "cancelled" }] });
});

test("the same where there was nothing new", async () => {
  await create();
  const serve = producer();
  now = Date.parse(night(0));
  await serve.look();
  await endRun();
  await serve.look();
  now = Date.parse(night(1));
  const dying = watched(world.stores, (write, when) => write === 1 && when === "after");
  await producer(dying.stores).look();
  now = Date.parse(night(4)) + 1;
  await serve.look();
  await serve.look();
  const { runs } = await read();
  expect(runs.map(({ due, outcome }) => [due, outcome])).toEqual([
    [night(0), "finished"],
    [night(1), "nothing new"],
  ]);
});

test("a job that was made by a start that was killed, and has ended since, is the run's", async () => {
  await create();
  now = Date.parse(night(0));
  // begun, claimed, job.json, state
  const dying = watched(world.stores, (write, when) => write === 4 && when === "after");
  await producer(dying.stores).look();
  const [made] = await jobs();
  const { out } = (await world.states().find(made!.id))!;
  const file = (await readJobFile(world.stores.at(out)))!;
  const created = { file, out, state: (await world.states().find(file.id))!, existed: true };
  await world.end(created, await world.label(created));
  await world.source.put("c.jpg", "c");
  const serve = producer();
  await serve.look();
  await serve.look();
  expect(await read()).toMatchObject({ run: null, runs: [{ due: night(0), outcome: "finished", job: file.id }] });
  expect(await jobs()).toHaveLength(1);
});

test("a schedule that was deleted and made anew while a run of it was started has none under way", async () => {
  await create();
  now = Date.parse(night(0));
  const around = surroundings();
  const put = around.states.create.bind(around.states);
  around.states.create = async (job) => {
    await put(job);
    await schedules().delete("nightly");
    now += 1;
    await create();
  };
  await new Scheduler({ ...around, clock: () => now }).look();
  expect(await jobs()).toHaveLength(1);
  expect(await read()).toMatchObject({ created: new Date(now).toISOString(), run: null, runs: [] });
});

test("a producer that loses the lease in the middle of a start writes no more; the start goes on where it was", async () => {
  await create();
  now = Date.parse(night(0));
  const around = surroundings();
  const serve = new Scheduler({ ...around, clock: () => now });
  const put = around.states.create.bind(around.states);
  around.states.create = async (job) => {
    await put(job);
    serve.stop();
  };
  await serve.look();
  expect((await read()).run).toMatchObject({ due: night(0), job: null, error: null });
  await serve.look();
  const [made, ...others] = await jobs();
  expect(others).toEqual([]);
  expect((await read()).run).toMatchObject({ due: night(0), job: made!.id });
});

test("two producers that both believe to have the lease start one job", async () => {
  await create();
  now = Date.parse(night(0));
  await Promise.all([producer().look(), producer().look()]);
  await producer().look();
  expect(await jobs()).toEqual([expect.objectContaining({ id: (await read()).run!.job })]);
});

test("without --incremental each night is a job of all there is", async () => {
  await create({ incremental: false });
  const serve = producer();
  for (const n of [0, 1]) {
    now = Date.parse(night(n));
    await serve.look();
    const { out, job } = (await read()).run!;
    expect(out).toBe(`${world.root.uri}runs/2026-11-2${6 + n}T01-00-00Z/`);
    await world.states().update(job!, (state) => ({ ...state, ended: "cancelled" }));
    await serve.look();
  }
  expect((await read()).runs).toMatchObject([{ outcome: "cancelled" }, { outcome: "cancelled" }]);
});

test("a run that is asked for starts at once, also while paused; asked for twice it is one", async () => {
  await create();
  await schedules().update("nightly", (schedule) => ({ ...schedule, paused: true }));
  await Promise.all([1, 2].map(() => schedules().update("nightly", (schedule) => ask(schedule, now))));
  const serve = producer();
  await serve.look();
  expect((await read()).run).toMatchObject({ due: new Date(now).toISOString(), asked: true });
  expect(ask(await read(), now)).toBeNull();
  await endRun();
  await serve.look();
  await serve.look();
  expect(await read()).toMatchObject({ asked: null, run: null, runs: [{ outcome: "finished", asked: true }] });
});

test("what was missed while it was paused does not run when it is resumed; the next night does", async () => {
  await create();
  const serve = producer();
  await schedules().update("nightly", (schedule) => ({ ...schedule, paused: true }));
  now = Date.parse(night(1)) + HOUR;
  await serve.look();
  await schedules().update("nightly", (schedule) => resumed(schedule, now));
  await serve.look();
  expect(await read()).toMatchObject({ run: null, runs: [] });
  now = Date.parse(night(2));
  await serve.look();
  expect((await read()).run).toMatchObject({ due: night(2) });
});

test("an error that may pass is tried again with growing pauses until the next night; another is the night's end", async () => {
  await create();
  // Another command's run is at work on the dataset.
  await world.start();
  const serve = producer();
  now = Date.parse(night(0));
  await serve.look();
  expect((await read()).run).toMatchObject({ failures: 1, error: { code: "DATASET_BUSY" }, job: null });
  now += 9_999;
  await serve.look();
  expect((await read()).run).toMatchObject({ failures: 1 });
  now += 1;
  await serve.look();
  expect((await read()).run).toMatchObject({ failures: 2, notBefore: new Date(now + 20_000).toISOString() });
  now = Date.parse(night(1));
  await serve.look();
  expect(await read()).toMatchObject({
    run: { due: night(1), failures: 1 },
    runs: [{ due: night(0), outcome: "error", error: { code: "DATASET_BUSY" } }],
  });
  for (const { id } of await jobs()) await world.states().update(id, (state) => ({ ...state, ended: "failed" }));
  now += 10_000;
  await serve.look();
  expect((await read()).run).toMatchObject({ due: night(1), error: null, job: expect.stringMatching(/^job_/) });

  await endRun();
  for (const key of ["a.jpg", "b.jpg"]) await world.source.delete(key);
  await serve.look();
  now = Date.parse(night(2));
  await serve.look();
  await serve.look();
  const { runs, run } = await read();
  expect(run).toBeNull();
  expect(runs.map(({ due }) => due)).toEqual([night(0), night(1), night(2)]);
  expect(runs.at(-1)).toMatchObject({ due: night(2), outcome: "error", error: { code: "INPUT_NOT_FOUND" }, job: null });
});

test("a run whose job was deleted has ended; a deleted schedule starts nothing; twenty runs are kept", async () => {
  await create();
  const serve = producer();
  now = Date.parse(night(0));
  await serve.look();
  await world.states().delete((await read()).run!.job!);
  await serve.look();
  const [gone] = (await read()).runs;
  expect(gone).toMatchObject({ outcome: "error", error: { code: "JOB_NOT_FOUND" } });
  await schedules().update("nightly", (schedule) => ({ ...schedule, runs: Array(20).fill(gone) }));
  now = Date.parse(night(1));
  await serve.look();
  await endRun();
  await serve.look();
  const { runs } = await read();
  expect(runs).toHaveLength(20);
  expect(runs.at(-1)).toMatchObject({ due: night(1) });
  await schedules().delete("nightly");
  now = Date.parse(night(2));
  await serve.look();
  expect(await jobs()).toHaveLength(1);
});

test("nothing is created where the job could not be submitted, or the place is another's", async () => {
  await world.stores.at(world.uri).put("bad.csv", "id,picture\n1,a.jpg\n");
  await world.stores.at(world.uri).put("taken/x.txt", "mine");
  const refused = (code: string, ...args: Parameters<typeof create>) =>
    expect(create(...args)).rejects.toMatchObject({ code });
  await refused("MANIFEST_INVALID", { incremental: false }, "nightly", `${world.uri}bad.csv`);
  await refused("INVALID_OPTION", {}, "nightly", `${world.uri}bad.csv`);
  await refused("INPUT_NOT_FOUND", {}, "nightly", `${world.uri}nowhere/`);
  await refused("MODEL_NOT_FOUND", { model: "nobody-runs-this" });
  await refused("TASK_UNSUPPORTED", { model: "demo-vqa" });
  await refused("OUTPUT_IN_USE", { out: `${world.uri}taken/` });
  await refused("OUTPUT_IN_USE", { out: `${world.uri}taken/`, incremental: false });
  await refused("OUTPUT_INSIDE_INPUT", { out: `${world.uri}in/out/` });
  await refused("INVALID_OPTION", {}, "../nightly");
  expect(await Array.fromAsync(schedules().all())).toEqual([]);
  await create();
  await refused("SCHEDULE_EXISTS");
  await refused("OUTPUT_IN_USE", {}, "weekly");
  expect(await Array.fromAsync(schedules().all())).toHaveLength(1);
  // What a deleted schedule has left goes on.
  now = Date.parse(night(0));
  await producer().look();
  await endRun();
  await schedules().delete("nightly");
  await create({}, "another");
});

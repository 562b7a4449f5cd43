import { addWork, costOf, layout, NO_WORK, type Timed, type Work, workOf } from "@capfleet/shared/contract";
import type { Report } from "@capfleet/shared/queues";
import { expect, test } from "vitest";
import { backends } from "../../shared/test/storage/backends.ts";
import { readRates } from "../src/estimate/rates.ts";
import type { CreatedJob } from "../src/jobs/create.ts";
import { readStatus, readSummary } from "../src/jobs/status.ts";
import { endJob } from "../src/reconcile/finisher.ts";
import { Lately } from "../src/reconcile/lately.ts";
import { JobTracker } from "../src/reconcile/tracker.ts";
import { World } from "./incremental-world.ts";

const timed = (given: Partial<Timed>): Work =>
  workOf({ rows: 100, seconds: 50, pricePerHour: 3.6, device: "cpu", cpu: "a CPU", ...given });

test("nothing is said before anything is measured", () => {
  expect(costOf(NO_WORK, 0, 10)).toBeNull();
  expect(costOf({ ...NO_WORK, untimed: 10 }, 10, 0)).toBeNull();
});

test("a job's cost so far, per 1,000 rows, and of the whole", () => {
  const cost = costOf(timed({}), 100, 300);
  expect(cost).toEqual({ workerSeconds: 50, spent: 0.05, per1000: 0.5, estimated: 0.2, isEstimate: false });
  expect(costOf(timed({}), 100, null)).toMatchObject({ spent: 0.05, per1000: 0.5, estimated: null });
});

test("workers of different prices, and of none", () => {
  const both = addWork(timed({}), timed({ pricePerHour: 7.2 }));
  expect(costOf(both, 200, 0)?.spent).toBeCloseTo(0.15);
  const free = addWork(timed({}), timed({ pricePerHour: null }));
  expect(costOf(free, 200, 0)).toMatchObject({ workerSeconds: 100, spent: 0.05, per1000: 0.25 });
  expect(costOf(timed({ pricePerHour: null }), 100, 0)).toMatchObject({ spent: null, per1000: null, estimated: null });
  expect(costOf(timed({ pricePerHour: 0 }), 100, 0)).toMatchObject({ spent: 0, per1000: 0, estimated: 0 });
});

test("rows whose reports were lost are taken to be like the others, and that is said", () => {
  const lost = { ...timed({}), untimed: 300 };
  expect(costOf(lost, 400, 400)).toEqual({
    workerSeconds: 200,
    spent: 0.2,
    per1000: 0.5,
    estimated: 0.4,
    isEstimate: true,
  });
});

test("a retry's work adds to the cost of rows that were counted before", () => {
  const again = addWork(timed({}), timed({ rows: 50, seconds: 25 }));
  const cost = costOf(again, 100, 0)!;
  expect(cost.spent).toBeCloseTo(0.075);
  expect(cost.per1000).toBeCloseTo(0.75);
});

test("a job's attempts add up, once, whatever was lost and however often an end is repeated", async () => {
  const backend = backends().find(({ name }) => name === "files")!;
  const world = await World.create(backend, {
    "a.jpg": "a",
    "b.jpg": "b",
    "c.jpg": '{"code":"INFERENCE_FAILED","message":"m","retryable":true}',
  });
  const created = (await world.start()) as CreatedJob;
  const { id } = created.file;
  const store = world.stores.at(created.out);
  const states = world.states();
  await world.label(created);
  const open = async () => (await JobTracker.open((await states.find(id))!, world.stores))!;
  const end = async (tracker: JobTracker) => endJob(tracker, "finished", null, states);
  const report = (shard: number, rows: number, seconds: number): Report => {
    const work = { rows, seconds, pricePerHour: 3_600, device: "cpu", cpu: "a CPU" };
    return { outcome: "committed", shard, sums: { rows, failed: 0, warned: 0, errors: {} }, work };
  };
  const cost = async () => (await readSummary(store))!.cost;

  // The report of the second shard, which has one row, is lost.
  const first = await open();
  first.absorb([report(0, 2, 4)], 0);
  await end(first);
  expect(await cost()).toMatchObject({ workerSeconds: 6, spent: 6, isEstimate: true });
  await end(first);
  await end(await open());
  expect(await cost()).toMatchObject({ workerSeconds: 6, spent: 6 });

  await states.retry(id, null);
  const again = await open();
  expect((await readStatus(again.state, world.stores, null))!.cost).toMatchObject({ spent: 6 });
  await store.put(layout.result(1), `${JSON.stringify({ id: "c.jpg", image: "x", caption: "c" })}\n`);
  again.absorb([report(1, 1, 10)], 0);
  // A producer that dies before the end is written has the next one do all of it once more.
  const state = await states.find(id);
  await end(again);
  expect(await cost()).toMatchObject({ workerSeconds: 16, spent: 16, per1000: expect.closeTo(16_000 / 3) });
  again.state = state!;
  await end(again);
  expect(await cost()).toMatchObject({ workerSeconds: 16, spent: 16 });

  const { jobs } = (await readRates("engine", "caption", states.store))!;
  expect(jobs).toMatchObject([{ job: id, rows: 3, workerSeconds: 12, pricePerHour: 3_600, machines: ["cpu (a CPU)"] }]);
  await backend.close();
});

test("a worker's rate follows what was measured lately, and stays while nothing is", () => {
  const lately = new Lately();
  expect([lately.rows, lately.workerSeconds]).toEqual([0, 0]);
  for (let i = 0; i < 100; i++) lately.add({ rows: 100, seconds: 100 });
  expect(lately.rows / lately.workerSeconds).toBeCloseTo(1);
  for (let i = 0; i < 100; i++) lately.add({ rows: 300, seconds: 100 });
  expect(lately.rows / lately.workerSeconds).toBeCloseTo(3, 1);
});

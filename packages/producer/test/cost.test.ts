import { addWork, costOf, NO_WORK, type Timed, type Work, workOf } from "@capfleet/shared/contract";
import { expect, test } from "vitest";
import { Lately } from "../src/reconcile/lately.ts";

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

test("a worker's rate follows what was measured lately, and stays while nothing is", () => {
  const lately = new Lately();
  expect([lately.rows, lately.workerSeconds]).toEqual([0, 0]);
  for (let i = 0; i < 100; i++) lately.add({ rows: 100, seconds: 100 });
  expect(lately.rows / lately.workerSeconds).toBeCloseTo(1);
  for (let i = 0; i < 100; i++) lately.add({ rows: 300, seconds: 100 });
  expect(lately.rows / lately.workerSeconds).toBeCloseTo(3, 1);
});

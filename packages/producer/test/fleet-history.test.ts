/** Samples of the fleet's figures. */
import type { FleetFigures, Presence } from "@capfleet/shared/queues";
import { expect, test } from "vitest";
import { FleetHistory } from "../src/reconcile/history.ts";

const figures = (labelled: number, records = 0): FleetFigures => ({
  jobs: {},
  rows: { labelled, failed: 0 },
  backlog: [{ engines: "e", models: [], jobs: 1, records, shards: 0, rows: 0, workerSeconds: 0, load: null, busy: 0 }],
  roundSeconds: 0,
  unread: 0,
});
const worker = (rows: number) => ({ inFlight: [{ job: "j", shard: 0, rows, failed: 0 }] }) as Presence;

test("a rate counts rows once, in a worker's hands and then committed; one that is lost with them is no less than none", () => {
  const history = new FleetHistory();
  expect(history.sample(figures(0), [], 0)).toBeNull();
  expect(history.sample(figures(0), [worker(40)], 9_999)).toBeNull();
  expect(history.sample(figures(0, 9), [worker(50)], 10_000)).toEqual({ at: 10_000, rate: 5, workers: 1, backlog: 9 });
  expect(history.sample(figures(512), [worker(8)], 20_000)).toMatchObject({ rate: 47 });
  expect(history.sample(figures(512), [], 30_000)).toMatchObject({ rate: 0, workers: 0 });
  expect(history.sample(figures(532), [], 40_000)).toMatchObject({ rate: 2 });
});

test("after a while without a look there is nothing to go by", () => {
  const history = new FleetHistory();
  history.sample(figures(0), [], 0);
  expect(history.sample(figures(9_000), [], 60_000)).toBeNull();
  expect(history.sample(figures(9_100), [], 70_000)).toMatchObject({ rate: 10 });
});

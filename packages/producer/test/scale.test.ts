import type { EngineRef } from "@capfleet/shared/contract";
import type { FleetFigures, Load, Presence } from "@capfleet/shared/queues";
import { describe, expect, test } from "vitest";
import { addLoads } from "../src/scale/load.ts";
import { wantedWorkers } from "../src/scale/policy.ts";
import { scaleOfPool, scaleOfSets } from "../src/scale/pools.ts";

const target = { drainSeconds: 1_800, startupSeconds: 300 };
const load = (given: Partial<Load>): Load => ({
  records: 10_000,
  shards: 1_000,
  seconds: 0,
  unknown: 0,
  probes: 0,
  ...given,
});
const NOTHING: Load = { records: 0, shards: 0, seconds: 0, unknown: 0, probes: 0 };
const wanted = (given: Partial<Load>, live = 0, busy = 0) => wantedWorkers([load(given)], { live, busy }, target);

describe("wanted workers", () => {
  test("none where nothing is to be done; one for the least that is", () => {
    expect(wantedWorkers([], { live: 0, busy: 0 }, target)).toBe(0);
    expect(wantedWorkers([NOTHING], { live: 7, busy: 0 }, target)).toBe(0);
    expect(wanted({ seconds: 0.01, records: 1, shards: 1 })).toBe(1);
  });

  test("so many that what is left is done in time, and those that are still to start have less of it", () => {
    expect(wanted({ seconds: 15_000 })).toBe(10);
    expect(wanted({ seconds: 15_001 })).toBe(11);
    // Two at work do 3,600 s of it; the other 11,400 s take eight that begin 300 s later.
    expect(wanted({ seconds: 15_000 }, 2)).toBe(10);
    expect(wanted({ seconds: 18_000 }, 10)).toBe(10);
    expect(wanted({ seconds: 18_001 }, 10)).toBe(11);
  });

  test("asked again every minute, a drain ends in its time, start-up included, and no worker is sent away before the end", () => {
    const shardSeconds = 20;
    let seconds = 36_000;
    const starting = wanted({ seconds });
    let [live, minute] = [0, 0];
    for (; seconds > 0; minute++) {
      if (minute === target.startupSeconds / 60) live = starting;
      seconds = Math.max(0, seconds - live * 60);
      const shards = Math.ceil(seconds / shardSeconds);
      const busy = Math.min(live, shards);
      if (live > 0 && shards >= live) expect(wanted({ seconds, shards }, live, busy)).toBe(starting);
    }
    expect(minute).toBe(30);
    expect(wanted({ seconds, shards: 0 }, live, 0)).toBe(0);
  });

  test("no worker with a shard in hand is sent away, even where all is paused", () => {
    expect(wantedWorkers([NOTHING], { live: 5, busy: 3 }, target)).toBe(3);
    expect(wanted({ seconds: 100 }, 5, 4)).toBe(4);
  });

  test("no more workers than there are shards", () => {
    expect(wanted({ seconds: 150_000, shards: 12 })).toBe(12);
  });

  test("one where nothing like it has been measured, and those that are at it", () => {
    expect(wanted({ unknown: 1 })).toBe(1);
    expect(wanted({ unknown: 1 }, 6, 4)).toBe(4);
    // What is known beside it counts.
    expect(wanted({ unknown: 1, seconds: 15_000 })).toBe(10);
    // It is being planned: its first shard is to come.
    expect(wantedWorkers([{ ...NOTHING, unknown: 1 }], { live: 0, busy: 0 }, target)).toBe(1);
  });

  test("a blocked job wants the one worker that its probe needs", () => {
    expect(wantedWorkers([{ ...NOTHING, probes: 3 }], { live: 8, busy: 0 }, target)).toBe(1);
    expect(wantedWorkers([{ ...NOTHING, probes: 3 }], { live: 0, busy: 0 }, target)).toBe(1);
  });

  test("more to do never wants fewer, and whatever there is wants one at least", () => {
    for (const live of [0, 1, 5, 50]) {
      let before = 0;
      for (let seconds = 1; seconds < 200_000; seconds += 3_331) {
        const now = wanted({ seconds }, live);
        expect(now).toBeGreaterThanOrEqual(Math.max(1, before));
        before = now;
      }
    }
  });
});

const engine = (model: string, precision: EngineRef["precision"] = "fp16"): EngineRef => ({
  model,
  digest: `${model}.${precision}`,
  checkpoint: "c",
  precision,
});
const worker = (id: string, models: string[], inFlight: Presence["inFlight"] = []): Presence => ({
  ...{ id, host: "h", pid: 1, version: "0", slots: 2, pricePerHour: null, inFlight },
  engines: models.map((model) => engine(model)),
});
const busy = [{ job: "job_1", shard: 0, rows: 1, failed: 0 }];

function figures(sets: { engines: EngineRef[]; load: Load | null; busy?: number }[], unread = 0): FleetFigures {
  const backlog = sets.map(({ engines, load, busy = 0 }) => ({
    engines: engines.map(({ digest }) => digest).join("+"),
    models: engines,
    ...{ jobs: 1, records: 1, shards: 1, rows: 0, workerSeconds: 0, load, busy },
  }));
  return { jobs: {}, rows: { labelled: 0, failed: 0 }, backlog, roundSeconds: 0, unread };
}
const [a, b] = [engine("a"), engine("b")];
const of = (seconds: number) => load({ seconds });
const pool = (models: string[], given: FleetFigures | null, workers: Presence[] = [], precision = null) =>
  scaleOfPool({ models, precision }, given, workers, target);

test("a job of which nothing is known yet does not hide what is known of the others", () => {
  const all = addLoads(load({ seconds: 15_000 }), { ...NOTHING, unknown: 1 });
  expect(wantedWorkers([all], { live: 0, busy: 0 }, target)).toBe(10);
});

describe("pools", () => {
  test("a worker with two models does the work of each and of both", () => {
    const all = figures([
      { engines: [a], load: of(15_000) },
      { engines: [b], load: of(3_000) },
      { engines: [a, b], load: of(1_500) },
    ]);
    expect([pool(["a"], all), pool(["b"], all), pool(["b", "a"], all), pool(["c"], all)]).toEqual([10, 2, 13, 0]);
  });

  test("only its own workers count as live and busy", () => {
    const none = figures([{ engines: [a], load: NOTHING }]);
    const workers = [worker("1", ["a"], busy), worker("2", ["a"]), worker("3", ["a", "b"], busy)];
    expect([pool(["a"], none, workers), pool(["a", "b"], none, workers)]).toEqual([1, 1]);
    // What the two that live can do in time needs no third.
    const some = figures([{ engines: [a], load: of(3_600) }]);
    expect([pool(["a"], some, workers), pool(["a"], some)]).toEqual([2, 3]);
  });

  test("work that is pinned to another precision is another pool's", () => {
    const all = figures([
      { engines: [a], load: of(1) },
      { engines: [engine("a", "int8")], load: of(15_000) },
    ]);
    const wanted = (precision: EngineRef["precision"] | null) =>
      scaleOfPool({ models: ["a"], precision }, all, [], target);
    expect([wanted("fp16"), wanted("int8"), wanted(null)]).toEqual([1, 10, 11]);
  });

  test("by engines: wanted for each alone, with the workers that have its shards in hand", () => {
    const all = figures([
      { engines: [a], load: of(15_000) },
      { engines: [b], load: NOTHING, busy: 1 },
    ]);
    expect(scaleOfSets(all, [worker("1", ["a", "b"], busy)], target)).toMatchObject([
      { engines: "a.fp16", models: ["a"], seconds: 15_000, wanted: 10 },
      { engines: "b.fp16", models: ["b"], wanted: 1 },
    ]);
  });

  test("what is not known is an error, never a 0", () => {
    const unknown = expect.objectContaining({ code: "FLEET_UNKNOWN", retryable: true });
    expect(() => pool(["a"], null)).toThrow(unknown);
    expect(() => pool(["a"], figures([], 1))).toThrow(unknown);
    expect(() => pool(["a"], figures([{ engines: [a], load: null }]))).toThrow(unknown);
  });
});

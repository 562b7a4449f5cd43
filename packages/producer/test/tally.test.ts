import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HISTOGRAM_BINS, layout, NO_WORK, ROLLUP_SHARDS } from "@capfleet/shared/contract";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Tally } from "../src/reconcile/tally.ts";

let folder: string;
let store: Store;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-tally-"));
  store = storesFromEnv({}).at(`${folder}/`);
});
afterEach(() => rm(folder, { recursive: true }));

const good = { rows: 2, failed: 0, warned: 0, errors: {} };
const result = (errors: number) =>
  [{ id: "a", image: "s3://b/a", caption: "x", score: 0 }, ...Array.from({ length: errors }, () => ROW)]
    .map((row) => `${JSON.stringify(row)}\n`)
    .join("");
const ROW = { id: "b", image: "s3://b/b", error: { code: "IMAGE_EMPTY", message: "no bytes", retryable: false } };
/** How many of the rows have a score of so many twentieths. */
const scores = (counts: Record<number, number>) => Array.from({ length: HISTOGRAM_BINS }, (_, i) => counts[i] ?? 0);
const WARNED = { id: "c", image: "s3://b/c", itm: 0.5, warnings: ["the text was cut"] };

test("reports count once; the low-water mark follows the unbroken row", async () => {
  const tally = new Tally(store, 0);
  tally.add(0, good, null);
  tally.add(0, good, null);
  tally.add(2, good, null);
  expect([tally.lowWater, tally.sums.rows]).toEqual([1, 4]);
  expect([0, 1, 2].map((shard) => tally.isCommitted(shard))).toEqual([true, false, true]);
  tally.add(1, good, null);
  expect(tally.lowWater).toBe(3);
});

test("results that nobody has reported are found and read", async () => {
  const tally = new Tally(store, 0);
  for (const reported of [0, 4]) {
    tally.add(reported, good, null);
    // Reported, so not read: it could not be.
    await store.put(layout.result(reported), "no rows");
  }
  await store.put(layout.result(1), result(2));
  await store.put(layout.result(3), `${result(0)}${JSON.stringify(WARNED)}\n`);
  await tally.look();
  expect(tally.sums).toEqual({
    rows: 2 + 2 + 3 + 2,
    failed: 2,
    warned: 1,
    errors: { IMAGE_EMPTY: 2 },
    scores: scores({ 10: 1, 19: 2 }),
  });
  expect([tally.lowWater, tally.isCommitted(3)]).toEqual([2, true]);
});

test("a new tally starts from the rollups and reads only what they do not cover", async () => {
  const tally = new Tally(store, 0);
  for (let shard = 0; shard < ROLLUP_SHARDS + 5; shard++) tally.add(shard, good, null);
  await tally.rollUp();
  expect((await store.stat(layout.rollup(0))) !== null && (await store.stat(layout.rollup(1))) === null).toBe(true);
  for (let shard = ROLLUP_SHARDS; shard < ROLLUP_SHARDS + 5; shard++) await store.put(layout.result(shard), result(1));

  const next = new Tally(store, 0);
  await next.load();
  // The rolled-up shards have no results here at all: they were not looked at.
  expect([next.lowWater, next.sums.rows, next.sums.failed]).toEqual([ROLLUP_SHARDS + 5, 2 * (ROLLUP_SHARDS + 5), 5]);
  await next.rollUp(true);
  const last = new Tally(store, 0);
  await last.load();
  expect(last.sums).toEqual(next.sums);
});

const WORK = { rows: 2, seconds: 4, pricedSeconds: 4, cost: 0.5, untimed: 0, guessed: 0 };

test("work is what reports tell; what is found without one counts as not timed, until its report comes", async () => {
  const tally = new Tally(store, 0);
  tally.add(0, good, WORK);
  await store.put(layout.result(1), result(1));
  await store.put(layout.result(2), result(1));
  await tally.look();
  expect(tally.work).toEqual({ ...WORK, untimed: 4 });
  for (let i = 0; i < 2; i++) tally.add(1, good, WORK);
  tally.add(3, good, null);
  const whole = { rows: 4, seconds: 8, pricedSeconds: 8, cost: 1, untimed: 4, guessed: 0 };
  expect(tally.work).toEqual(whole);
  await tally.rollUp(true);
  const next = new Tally(store, 0);
  await next.load();
  expect(next.work).toEqual(whole);
  // As an older version wrote it.
  const { work: _, ...older } = JSON.parse((await store.read(layout.rollup(0))).bytes.toString("utf8"));
  await store.put(layout.rollup(0), JSON.stringify(older));
  const last = new Tally(store, 0);
  await last.load();
  expect(last.work).toEqual({ ...NO_WORK, untimed: 8 });
});

describe("of a job that is retried", () => {
  const failed = (attempt?: number) => ({
    ...ROW,
    error: { code: "INFERENCE_FAILED", message: "oops", retryable: true, ...(attempt && { attempt }) },
  });
  const write = (shard: number, ...rows: object[]) =>
    store.put(layout.result(shard), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));

  test("shards with rows that are to be done again are open until they are", async () => {
    await write(0, ROW, WARNED);
    await write(1, WARNED, failed());
    await write(2, failed(2));
    const tally = new Tally(store, 1);
    await tally.load();
    expect([0, 1, 2].map((shard) => tally.isCommitted(shard))).toEqual([true, false, true]);
    expect(tally.sums).toMatchObject({ rows: 3, failed: 2 });
    await write(1, WARNED, failed(2));
    await tally.look();
    expect(tally.lowWater).toBe(3);
    expect(tally.sums).toMatchObject({ rows: 5, failed: 3 });
  });

  test("work is what the retry took, and not what stays of before", async () => {
    await write(0, WARNED);
    await write(1, WARNED, WARNED, failed());
    await write(2, failed());
    const tally = new Tally(store, 1);
    await tally.load();
    expect([tally.work, tally.kept]).toEqual([NO_WORK, 2]);
    tally.add(2, good, WORK);
    // Its report is lost.
    await write(1, WARNED, WARNED, failed(2));
    await tally.look();
    expect([tally.work, tally.kept]).toEqual([{ ...WORK, untimed: 1 }, 0]);
  });

  test("they are read once for each time that they are written", async () => {
    await write(0, failed());
    const counted = countReads(store);
    const tally = new Tally(counted.store, 1);
    await tally.load();
    await tally.look();
    expect(counted.reads).toBe(1);
    await write(0, failed(), WARNED);
    await tally.look();
    expect(counted.reads).toBe(2);
  });

  test("rollups of before do not hold, those of after do", async () => {
    await write(0, failed());
    const before = new Tally(store, 0);
    await before.load();
    await before.rollUp(true);
    const retried = new Tally(store, 1);
    await retried.load();
    expect(retried.sums.rows).toBe(0);
    await write(0, WARNED);
    await retried.look();
    await retried.rollUp(true);
    await store.put(layout.result(0), "not to be read");
    const after = new Tally(store, 1);
    await after.load();
    expect([after.lowWater, after.sums]).toEqual([
      1,
      { rows: 1, failed: 0, warned: 1, errors: {}, scores: scores({ 10: 1 }) },
    ]);
  });
});

function countReads(store: Store) {
  const counted = {
    reads: 0,
    store: new Proxy(store, {
      get(target, name) {
        if (name === "read") counted.reads += 1;
        const value = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
    }),
  };
  return counted;
}

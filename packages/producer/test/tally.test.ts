import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { layout, ROLLUP_SHARDS } from "@capfleet/shared/contract";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import { afterEach, beforeEach, expect, test } from "vitest";
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
const WARNED = { id: "c", image: "s3://b/c", itm: 0.5, warnings: ["the text was cut"] };

test("reports count once; the low-water mark follows the unbroken row", async () => {
  const tally = new Tally(store);
  tally.add(0, good);
  tally.add(0, good);
  tally.add(2, good);
  expect([tally.lowWater, tally.sums.rows]).toEqual([1, 4]);
  expect([0, 1, 2].map((shard) => tally.isCommitted(shard))).toEqual([true, false, true]);
  tally.add(1, good);
  expect(tally.lowWater).toBe(3);
});

test("results that nobody has reported are found and read", async () => {
  const tally = new Tally(store);
  for (const reported of [0, 4]) {
    tally.add(reported, good);
    // Reported, so not read: it could not be.
    await store.put(layout.result(reported), "no rows");
  }
  await store.put(layout.result(1), result(2));
  await store.put(layout.result(3), `${result(0)}${JSON.stringify(WARNED)}\n`);
  await tally.look();
  expect(tally.sums).toEqual({ rows: 2 + 2 + 3 + 2, failed: 2, warned: 1, errors: { IMAGE_EMPTY: 2 } });
  expect([tally.lowWater, tally.isCommitted(3)]).toEqual([2, true]);
});

test("a new tally starts from the rollups and reads only what they do not cover", async () => {
  const tally = new Tally(store);
  for (let shard = 0; shard < ROLLUP_SHARDS + 5; shard++) tally.add(shard, good);
  await tally.rollUp();
  expect((await store.stat(layout.rollup(0))) !== null && (await store.stat(layout.rollup(1))) === null).toBe(true);
  for (let shard = ROLLUP_SHARDS; shard < ROLLUP_SHARDS + 5; shard++) await store.put(layout.result(shard), result(1));

  const next = new Tally(store);
  await next.load();
  // The rolled-up shards have no results here at all: they were not looked at.
  expect([next.lowWater, next.sums.rows, next.sums.failed]).toEqual([ROLLUP_SHARDS + 5, 2 * (ROLLUP_SHARDS + 5), 5]);
  await next.rollUp(true);
  const last = new Tally(store);
  await last.load();
  expect(last.sums).toEqual(next.sums);
});

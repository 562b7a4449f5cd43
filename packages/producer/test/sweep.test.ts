/** What is left of `data/` when a job ends: the files that the results name, and no others. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { layout, type ResultRow } from "@capfleet/shared/contract";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import { afterEach, beforeEach, expect, test } from "vitest";
import { sweepData } from "../src/reconcile/sweep.ts";

let folder: string;
let store: Store;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-sweep-"));
  store = storesFromEnv({}).at(`${folder}/`);
});
afterEach(() => rm(folder, { recursive: true }));

const error = { code: "IMAGE_NOT_FOUND", message: "gone", retryable: false };
const failed: ResultRow = { id: "x", image: null, error };
const inFile = (data: string): ResultRow => ({ id: "1", image: null, caption: "a", data });
const plant = async (...keys: string[]) => {
  for (const key of keys) await store.put(key, key);
};
const result = (shard: number, ...rows: ResultRow[]) =>
  store.put(layout.result(shard), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
const left = async () => (await Array.fromAsync(store.list({ prefix: layout.data }))).map(({ key }) => key);
const [a0, b0, a1, a2, b2] = ["000000-a", "000000-b", "000001-a", "000002-a", "000002-b"].map(
  (name) => `data/${name}.tar`,
);

test("of several files of a shard the one stays that its first labelled row names", async () => {
  await plant(a0!, b0!, a1!, a2!, b2!);
  await result(0, failed, inFile(b0!));
  await result(1, inFile(a1!));
  await result(2, inFile(a2!), failed);
  await sweepData(store, 3);
  expect(await left()).toEqual([b0, a1, a2]);
});

test("a shard whose rows all failed, or that has no results, loses the only file that it has", async () => {
  await plant(a0!, a1!, a2!);
  await result(0, inFile(a0!));
  await result(1, failed, failed);
  await sweepData(store, 1);
  expect(await left()).toEqual([a0]);
});

test("where each shard has the one file that it should, no results are read", async () => {
  await plant(a0!, a1!);
  // If they were read, they would say that nothing is named.
  await result(0, failed);
  await result(1, failed);
  await sweepData(store, 2);
  expect(await left()).toEqual([a0, a1]);
});

test("what is not ours is left alone, and nothing at all is fine", async () => {
  await sweepData(store, 0);
  await plant("data/notes.txt");
  await sweepData(store, 0);
  expect(await left()).toEqual(["data/notes.txt"]);
});

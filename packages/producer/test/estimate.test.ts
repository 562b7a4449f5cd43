import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileStore, type Store, Stores } from "@capfleet/shared/storage";
import { afterEach, beforeEach, expect, test } from "vitest";
import { countInput } from "../src/estimate/count.ts";
import { estimate, rateOf } from "../src/estimate/estimate.ts";
import { answerPlan } from "../src/estimate/plan.ts";
import { type Measured, readRates, recordRate } from "../src/estimate/rates.ts";

let folder: string;
let state: Store;
const stores = new Stores();

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-estimate-"));
  state = new FileStore(join(folder, "state"));
});
afterEach(() => rm(folder, { recursive: true }));

const engine = { model: "m", digest: "d", checkpoint: "c", precision: "int8" } as const;
const of = { task: "caption", engines: [engine] } as const;
const measured = (job: string, more: Partial<Measured> = {}): Omit<Measured, "capfleet"> => ({
  job,
  measured: "2026-11-25T01:00:00.000Z",
  rows: 100,
  workerSeconds: 50,
  pricePerHour: null,
  machines: ["cpu (a CPU)"],
  ...more,
});
const record = (job: string, more?: Partial<Measured>) =>
  recordRate({ ...of, engines: [engine] }, measured(job, more), state);
const rates = async () => (await readRates("d", "caption", state))!;

test("an entry per job: the last ten, written by many at once, and a retried job's is replaced", async () => {
  expect(await readRates("d", "caption", state)).toBeNull();
  await Promise.all(Array.from({ length: 6 }, (_, n) => record(`job_${n}`)));
  expect((await rates()).jobs.map(({ job }) => job).sort()).toEqual([0, 1, 2, 3, 4, 5].map((n) => `job_${n}`));
  for (let n = 6; n < 12; n++) await record(`job_${n}`);
  expect((await rates()).jobs).toHaveLength(10);
  await record("job_7", { rows: 200 });
  const { jobs, engines } = await rates();
  expect(jobs.filter(({ job }) => job === "job_7")).toEqual([jobs.at(-1)]);
  expect(jobs.at(-1)).toMatchObject({ rows: 200, capfleet: expect.any(String) });
  expect(engines).toEqual([{ model: "m", precision: "int8", digest: "d" }]);
});

test("what cannot be read is as nothing, and is written anew", async () => {
  await state.put("rates/d.caption.json", "{");
  expect(await readRates("d", "caption", state)).toBeNull();
  await record("job_1");
  expect((await rates()).jobs).toHaveLength(1);
});

test("the rate is that of the jobs which ran where the last one did", async () => {
  await record("job_0", { machines: ["cuda (another)"], rows: 10_000, pricePerHour: 9 });
  await record("job_1", { pricePerHour: 0.5 });
  await record("job_2", { rows: 300, workerSeconds: 50 });
  const rate = rateOf(await rates())!;
  expect(rate).toEqual({
    perWorker: 4,
    pricePerHour: 0.5,
    source: "400 rows (2 jobs, the last job_2, 2026-11-25) on cpu (a CPU)",
  });
  const found = estimate({ images: 144_000, workers: 5, rate, pricePerHour: null });
  expect(found).toMatchObject({ seconds: 7_200, workerHours: 10, pricePerHour: 0.5, cost: 5 });
  expect(found.per1000).toBeCloseTo(5 / 144);
  expect(found.assumed.join("\n")).toContain("job_2");
  expect(rateOf(await rates(), false)!.source).toBe("400 rows (2 jobs, the last 2026-11-25) on cpu (a CPU)");
  expect(estimate({ images: 144_000, workers: 5, rate, pricePerHour: 2 }).cost).toBe(20);
  expect(estimate({ images: 1, workers: 1, rate: { ...rate, pricePerHour: null }, pricePerHour: null })).toMatchObject({
    cost: null,
    per1000: null,
  });
});

test("a plan: no rate has a code that says what to do; one that is given needs no model", async () => {
  const question = {
    task: "caption",
    engines: async () => [engine],
    images: 3_600,
    workers: 2,
    pricePerHour: null,
    rate: null,
    seesJobs: true,
  } as const;
  await expect(answerPlan(question, stores, state)).rejects.toMatchObject({ code: "RATE_UNKNOWN" });
  const never = () => Promise.reject(new Error("asked for a model"));
  expect(await answerPlan({ ...question, engines: never, rate: 1 }, stores, state)).toMatchObject({ seconds: 1_800 });
});

test("counting: to the end, or for as long as somebody waits", async () => {
  await writeFile(join(folder, "list.jsonl"), '{"image":"a.jpg"}\n'.repeat(200_000));
  const input = join(folder, "list.jsonl");
  expect(await countInput(input, stores, { withinMs: null })).toBe(200_000);
  await expect(countInput(input, stores, { withinMs: 0 })).rejects.toMatchObject({ code: "COUNT_TIMEOUT" });
  await writeFile(join(folder, "empty.jsonl"), "\n");
  await expect(countInput(join(folder, "empty.jsonl"), stores, { withinMs: null })).rejects.toMatchObject({
    code: "INPUT_EMPTY",
  });
  await expect(countInput(join(folder, "nowhere"), stores, { withinMs: null })).rejects.toMatchObject({
    code: "INPUT_NOT_FOUND",
  });
});

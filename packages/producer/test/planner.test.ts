import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CapfleetError, decodingSchema, type JobSpec, layout, type TaskSpec } from "@capfleet/shared/contract";
import type { Dataset, Entry } from "@capfleet/shared/datasets";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { readShard } from "../../worker/src/pipeline/shard.ts";
import { PlanConflict, type Planned, planJob, readPlanned } from "../src/plan/planner.ts";

let folder: string;
let store: Store;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-plan-"));
  store = storesFromEnv({}).at(`${folder}/`);
});
afterEach(() => rm(folder, { recursive: true }));

const name = (n: number) => `image-${String(n).padStart(7, "0")}.jpg`;

/** `size` records, but for `without`, in chunks of an awkward size; the cursor is the last key, as in a listing. */
function numbered(size: number, without = -1): Dataset {
  return {
    async *entries(cursor) {
      let n = cursor?.source === "prefix" ? Number(/\d+/.exec(cursor.after)![0]) + 1 : 0;
      while (n < size) {
        const chunk: Entry[] = [];
        for (; chunk.length < 37 && n < size; n++) {
          if (n === without) continue;
          chunk.push({
            record: { id: name(n), image: `s3://b/${name(n)}` },
            cursor: { source: "prefix", after: name(n) },
          });
        }
        yield chunk;
      }
    },
  };
}

const caption: TaskSpec = { name: "caption", decoding: decodingSchema.parse({}), captions: 1, prompt: null };
interface Spec {
  shardSize?: number;
  limit?: number;
  task?: TaskSpec;
}

function plan(dataset: Dataset, spec: Spec = {}, target = store, slots = 0) {
  const seen: Planned[] = [];
  const { shardSize = null, limit = null, task = caption } = spec;
  const full = { shardSize, limit, task } as JobSpec;
  const signal = new AbortController().signal;
  const request = {
    store: target,
    spec: full,
    dataset,
    slots,
    signal,
    onShard: (planned: Planned) => seen.push(planned),
  };
  return { done: planJob(request), seen };
}

async function shardSizes(): Promise<number[]> {
  const { shards } = await readPlanned(store);
  return Promise.all(Array.from({ length: shards }, async (_, n) => (await readShard(store, n)).length));
}

/** The store, but its nth put of a shard fails, as when the process is killed there. */
function breaking(at: number): Store {
  let puts = 0;
  return new Proxy(store, {
    get: (target, property) => {
      if (property === "putIfAbsent") {
        return async (key: string, body: string) => {
          puts += 1;
          if (puts === at) throw new CapfleetError("STORE_UNAVAILABLE", "broken off");
          return target.putIfAbsent(key, body);
        };
      }
      const value = Reflect.get(target, property);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

test("shards of the size asked for, in order, every record once; progress counts the unbroken row", async () => {
  const { done, seen } = plan(numbered(1_000), { shardSize: 300 });
  expect(await done).toMatchObject({ shards: 4, records: 1_000 });
  expect(await shardSizes()).toEqual([300, 300, 300, 100]);
  expect(seen.map(({ records }) => records)).toEqual([0, 300, 600, 900, 1_000]);
  const ids = (await Promise.all([0, 1, 2, 3].map((n) => readShard(store, n)))).flat().map(({ id }) => id);
  expect(ids).toEqual(Array.from({ length: 1_000 }, (_, n) => name(n)));
});

test.each([
  [10, 0, [10]],
  [100, 0, [16, 16, 16, 16, 16, 16, 4]],
  [800, 0, Array(8).fill(100)],
  [800, 8, Array(16).fill(50)],
  [5_000, 0, [...Array(9).fill(512), 392]],
])("a job of %i records with %i slots has shards of %j", async (records, slots, sizes) => {
  await plan(numbered(records), {}, store, slots).done;
  expect(await shardSizes()).toEqual(sizes);
});

describe("texts bound a shard as well: it and its rows have to fit in a worker's memory", () => {
  const itm: TaskSpec = { name: "itm", texts: { column: "alt" } };
  const withTexts = (size: number, texts: (n: number) => string[]): Dataset => ({
    async *entries(cursor) {
      for await (const chunk of numbered(size).entries(cursor)) {
        const all = chunk.map((entry) => ({ ...entry, n: Number(/\d+/.exec(entry.record.id)![0]) }));
        yield all.map(({ record, cursor, n }) => ({ record: { ...record, texts: texts(n) }, cursor }));
      }
    },
  });
  const many = Array.from({ length: 1_000 }, () => "a dog");

  test("few and short ones change nothing", async () => {
    await plan(
      withTexts(1_000, () => ["a dog", "a cat"]),
      { shardSize: 500, task: itm },
    ).done;
    expect(await shardSizes()).toEqual([500, 500]);
  });

  test("many ones, from a column or from the job, or long ones", async () => {
    await plan(
      withTexts(20, (n) => (n < 10 ? many : ["a dog"])),
      { shardSize: 12, task: itm },
    ).done;
    // 8 × 1,000 × (5 + 4,096) is the last that is below 32 MiB.
    expect(await shardSizes()).toEqual([8, 12]);
    for await (const { key } of store.list()) await store.delete(key);
    await plan(numbered(20), { shardSize: 20, task: { name: "embed", texts: { given: many } } }).done;
    expect(await shardSizes()).toEqual([8, 8, 4]);
    for await (const { key } of store.list()) await store.delete(key);
    await plan(
      withTexts(40, () => ["x".repeat(2 ** 20)]),
      { shardSize: 40, task: itm },
    ).done;
    expect(await shardSizes()).toEqual([31, 9]);
  });

  test("what records keep, whatever the task", async () => {
    const keeping: Dataset = {
      async *entries(cursor) {
        for await (const chunk of numbered(40).entries(cursor)) {
          yield chunk.map(({ record, cursor }) => ({
            record: { ...record, kept: { page: "x".repeat(2 ** 20) } },
            cursor,
          }));
        }
      },
    };
    await plan(keeping, { shardSize: 40 }).done;
    expect(await shardSizes()).toEqual([31, 9]);
  });

  test("interrupted after a small first shard, it still has every record once", async () => {
    const dataset = withTexts(60, (n) => (n < 9 ? many : ["a dog"]));
    await expect(plan(dataset, { shardSize: 20, task: itm }, breaking(2)).done).rejects.toThrow("broken off");
    expect(await plan(dataset, { shardSize: 20, task: itm }).done).toMatchObject({ records: 60 });
    const { shards } = await readPlanned(store);
    const ids = (await Promise.all(Array.from({ length: shards }, (_, n) => readShard(store, n)))).flat();
    expect(ids.map(({ id }) => id)).toEqual(Array.from({ length: 60 }, (_, n) => name(n)));
  });
});

test("a limit ends the plan, also across an interruption", async () => {
  await expect(plan(numbered(1_000), { shardSize: 100, limit: 450 }, breaking(3)).done).rejects.toThrow("broken off");
  expect(await plan(numbered(1_000), { shardSize: 100, limit: 450 }).done).toMatchObject({ shards: 5, records: 450 });
  expect(await shardSizes()).toEqual([100, 100, 100, 100, 50]);
});

test("interrupted, it goes on after the last shard, and never leaves a gap", async () => {
  await expect(plan(numbered(1_000), { shardSize: 50 }, breaking(4)).done).rejects.toThrow("broken off");
  expect((await readPlanned(store)).shards).toBe(3);
  expect(await store.stat(layout.shard(4))).toBeNull();
  // A picture has been deleted meanwhile.
  const { done, seen } = plan(numbered(1_000, 170), { shardSize: 50 });
  expect(await done).toMatchObject({ shards: 20, records: 999 });
  expect(seen[0]).toEqual({ shards: 3, records: 150 });
  const ids = (await Promise.all(Array.from({ length: 20 }, (_, n) => readShard(store, n)))).flat().map(({ id }) => id);
  expect(ids).toEqual(Array.from({ length: 1_000 }, (_, n) => name(n)).filter((id) => id !== name(170)));
});

test("a shard file that somebody has deleted is a job that can't go on, and says so", async () => {
  await plan(numbered(100), { shardSize: 30 }).done;
  await store.delete(layout.plan);
  await store.delete(layout.shard(1));
  const failure = { code: "JOB_FAILED", message: expect.stringContaining("000001.jsonl is gone") };
  await expect(plan(numbered(100), { shardSize: 30 }).done).rejects.toMatchObject(failure);
});

test("interrupted, it keeps the shard size that it had chosen", async () => {
  await expect(plan(numbered(1_000), {}, breaking(3)).done).rejects.toThrow("broken off");
  await plan(numbered(1_000), {}, store, 16).done;
  expect(await shardSizes()).toEqual(Array(8).fill(125));
});

test("a plan that is whole is not made again", async () => {
  await plan(numbered(100), { shardSize: 50 }).done;
  const { done, seen } = plan(numbered(999_999), { shardSize: 50 });
  expect(await done).toMatchObject({ shards: 2, records: 100 });
  expect(seen).toMatchObject([{ shards: 2, records: 100 }]);
});

/** Another producer puts its version of shard 1 a moment before we do. */
function overtaken(theirs: (ours: string) => string): Store {
  return new Proxy(store, {
    get: (target, property) => {
      if (property === "putIfAbsent") {
        return async (key: string, body: string) => {
          if (key === layout.shard(1)) await target.put(key, theirs(body));
          return target.putIfAbsent(key, body);
        };
      }
      const value = Reflect.get(target, property);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

test("another producer's shard of the same content is as good as ours", async () => {
  const done = plan(
    numbered(100),
    { shardSize: 30 },
    overtaken((ours) => ours),
  ).done;
  expect(await done).toMatchObject({ shards: 4, records: 100 });
});

test("another producer's shard of other content stops this plan; the next one goes on from theirs", async () => {
  await plan(numbered(1_000, 35), { shardSize: 30 }).done;
  const theirs = (await store.read(layout.shard(1))).bytes.toString();
  for await (const { key } of store.list()) await store.delete(key);

  const done = plan(
    numbered(100),
    { shardSize: 30 },
    overtaken(() => theirs),
  ).done;
  await expect(done).rejects.toBeInstanceOf(PlanConflict);
  expect(await store.stat(layout.plan)).toBeNull();
  expect(await plan(numbered(100, 35), { shardSize: 30 }).done).toMatchObject({ shards: 4, records: 99 });
  expect((await store.read(layout.shard(1))).bytes.toString()).toBe(theirs);
});

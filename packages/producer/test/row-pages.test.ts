/** Pages of a job's rows: what is in them, and what they cost. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JobTaskSpec } from "@capfleet/shared/contract";
import { FileStore, type Store } from "@capfleet/shared/storage";
import { afterAll, beforeAll, expect, test } from "vitest";
import { writeJob } from "../../../test/support/job-objects.ts";
import { type RowPage, type RowQuery, rowPage } from "../src/api/row-pages.ts";
import type { Found } from "../src/api/views.ts";

const SHARDS = 120;
const PER_SHARD = 5;
const TASK: JobTaskSpec = { name: "itm", texts: { column: "alt" } };

let folder: string;
let found: Found;
let reads: string[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-pages-"));
  const store = new FileStore(folder);
  const counted: Store = new Proxy(store, {
    get: (target, name) => {
      if (name === "read") {
        return (key: string) => {
          reads.push(key);
          return target.read(key);
        };
      }
      const value = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const line = (n: number) => {
    const record = { id: `r${n}`, image: `s3://b/${n}.jpg`, texts: [`text ${n}`] };
    const row = { id: record.id, image: record.image, itm: n % 100 === 7 ? 0.9 : 0.1 };
    return { record, row };
  };
  const job = await writeJob(store, { task: TASK, shards: SHARDS, perShard: PER_SHARD, line });
  found = { ...job, store: counted };
});
afterAll(() => rm(folder, { recursive: true }));

const ALL: RowQuery = {
  selection: { errors: false, kept: false },
  filter: { code: null, search: null, score: null },
  cursor: null,
  limit: 7,
  texts: true,
};

async function pages(query: RowQuery): Promise<RowPage[]> {
  const all: RowPage[] = [];
  let cursor: string | null = null;
  do {
    reads = [];
    const page = await rowPage(found, { ...query, cursor });
    // Results and, of shards that have rows in the page, their records.
    expect(reads.filter((key) => key.startsWith("results/")).length).toBeLessThanOrEqual(50);
    expect(reads.length).toBeLessThanOrEqual(50 + page.rows.length);
    all.push(page);
    cursor = page.next_cursor;
  } while (cursor !== null);
  return all;
}

test("each row once, with its position and what was asked of it; what was passed adds up", async () => {
  const all = await pages(ALL);
  const ids = all.flatMap(({ rows }) => rows.map(({ id }) => id));
  expect(ids).toEqual(Array.from({ length: SHARDS * PER_SHARD }, (_, n) => `r${n}`));
  for (const { rows, positions, texts, looked_at: looked } of all) {
    const numbers = positions.map((position) => position.split(".").map(Number));
    expect(numbers.map(([shard, line]) => `r${shard! * PER_SHARD + line!}`)).toEqual(rows.map(({ id }) => id));
    expect(texts).toEqual({ given: null, rows: rows.map(({ id }) => [`text ${id.slice(1)}`]) });
    expect(looked).toBe(rows.length);
  }
});

test("what is rare is found in pages that look at so many shards, and say how many rows they have passed", async () => {
  const all = await pages({ ...ALL, filter: { ...ALL.filter, score: { from: 0.85, to: 0.95 } } });
  expect(all.map(({ rows, looked_at: looked }) => [rows.map(({ id }) => id), looked])).toEqual([
    [["r7", "r107", "r207"], 250],
    [["r307", "r407"], 250],
    [["r507"], 100],
  ]);
});

test("a page that ends within a shard goes on behind its last row", async () => {
  const all = await pages({ ...ALL, limit: 2, filter: { ...ALL.filter, search: "r11" } });
  const ids = all.flatMap(({ rows }) => rows.map(({ id }) => id));
  expect(ids).toEqual(["r11", "r110", "r111", "r112", "r113", "r114", "r115", "r116", "r117", "r118", "r119"]);
  expect(all.reduce((sum, { looked_at: looked }) => sum + looked, 0)).toBe(SHARDS * PER_SHARD);
});

test("texts that the job gives come once, whatever the number of rows", async () => {
  const given: Found = {
    ...found,
    file: { ...found.file, spec: { ...found.file.spec, task: { name: "itm", texts: { given: ["a"] } } } },
  };
  reads = [];
  const { texts } = await rowPage(given, ALL);
  expect(texts).toEqual({ given: ["a"], rows: Array(7).fill(null) });
  expect(reads.every((key) => key.startsWith("results/"))).toBe(true);
});

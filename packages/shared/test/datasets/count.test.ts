import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parquetWriteBuffer } from "hyparquet-writer";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Input, inputSchema } from "../../src/contract/index.ts";
import { countRecords, manifestDataset } from "../../src/datasets/index.ts";
import { storesFromEnv } from "../../src/storage/index.ts";
import { caption } from "./tasks.ts";

let folder: string;
const stores = storesFromEnv({});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-count-"));
});
afterEach(() => rm(folder, { recursive: true }));

async function counted(input: Input): Promise<number> {
  let records = 0;
  for await (const more of countRecords(input, stores)) records += more;
  return records;
}

/** The planner's own count, and that of the counter. */
async function both(kind: "jsonl" | "csv" | "parquet", name: string): Promise<[number, number]> {
  const input = inputSchema.parse({ kind, uri: `file://${folder}/${name}`, columns: { image: "url" } });
  let planned = 0;
  for await (const entries of manifestDataset({ ...input, kind }, stores, caption).entries(null))
    planned += entries.length;
  return [planned, await counted(input)];
}

test("manifests have as many records as a job of them has, broken lines and files included", async () => {
  await writeFile(join(folder, "a.jsonl"), '{"url":"1.jpg"}\n\n  \nnonsense\n{"url":"2.jpg"}');
  expect(await both("jsonl", "a.jsonl")).toEqual([3, 3]);
  await writeFile(join(folder, "a.csv"), 'url,id\n1.jpg,"a\nb"\n\n2.jpg,c,surplus\n3.jpg,"open\n');
  expect(await both("csv", "a.csv")).toEqual([3, 3]);
  const data = Array.from({ length: 5_000 }, (_, n) => `${n}.jpg`);
  const table = Buffer.from(
    parquetWriteBuffer({ columnData: [{ name: "url", type: "STRING", data }], rowGroupSize: 999 }),
  );
  await mkdir(join(folder, "tables"));
  for (const part of [0, 1]) await writeFile(join(folder, `tables/${part}.parquet`), table);
  await writeFile(join(folder, "tables/2.parquet"), "no table at all");
  expect(await both("parquet", "tables/")).toEqual([10_001, 10_001]);
});

test("a CSV is counted whatever its image column is called", async () => {
  await writeFile(join(folder, "a.csv"), "link,id\n1.jpg,a\n2.jpg,b\n");
  expect(await counted(inputSchema.parse({ kind: "csv", uri: `file://${folder}/a.csv` }))).toBe(2);
});

test("a prefix: its images", async () => {
  for (const name of ["a.jpg", "b.PNG", "notes.txt"]) await writeFile(join(folder, name), "");
  expect(await counted(inputSchema.parse({ kind: "prefix", uri: `file://${folder}/` }))).toBe(2);
});

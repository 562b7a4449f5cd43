/** Exports: what is in them, what goes to errors, and that one that was broken off ends as one that was not. */
import { execFileSync } from "node:child_process";
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import {
  CapfleetError,
  decodingSchema,
  type Format,
  type JobTaskSpec,
  type ResultRow,
} from "@capfleet/shared/contract";
import { type Store, Stores, storesFromEnv } from "@capfleet/shared/storage";
import { afterEach, beforeEach, describe, expect, inject, test } from "vitest";
import { describeParquet, query } from "../../../test/support/duckdb.ts";
import { writeJob } from "../../../test/support/job-objects.ts";
import { DEMO } from "../../../test/support/processes.ts";
import type { S3Server } from "../../../test/support/s3/ceph.ts";
import { type ExportRequest, exportDataset } from "../src/export/export.ts";
import { jobSource } from "../src/export/job-source.ts";

const caption: JobTaskSpec = { name: "caption", decoding: decodingSchema.parse({}), captions: 1, prompt: null };
const filter: JobTaskSpec = { name: "filter", texts: { column: "alt" }, threshold: 0.5 };
const error = { code: "IMAGE_UNREADABLE", message: "no image", retryable: false };
const ROWS = 60;
let stores: Stores;
let folder: string;
let job: Store;

beforeEach(async () => {
  stores = storesFromEnv({});
  folder = await mkdtemp(join(tmpdir(), "capfleet-export-"));
  for (let n = 0; n < ROWS; n++) await copyFile(join(DEMO, "images/scene-003.jpg"), join(folder, `${n}.jpg`));
  job = stores.at(`${folder}/job/`);
});
afterEach(() => rm(folder, { recursive: true }));

/** Every tenth row failed. */
const lineOf = (n: number) => {
  const image = `file://${folder}/${n}.jpg`;
  const own = { id: `${n}`, image, kept: { alt: `alt ${n}` } };
  const labelled: ResultRow = { ...own, caption: `Bild ${n} 🐕`, score: -1 - n, data: "data/gone.parquet" };
  return { record: own, row: n % 10 === 9 ? { ...own, error } : labelled };
};
const captions = () => writeJob(job, { task: caption, shards: 6, perShard: 10, line: lineOf, keep: ["alt"] });
const pairsOf = (n: number) => [
  { text: `web ${n}`, origin: "web" as const, itm: 0.9, kept: n % 2 === 0 },
  { text: `made ${n}`, origin: "synthetic" as const, itm: 0.6, kept: true },
];
const cleaned = () =>
  writeJob(job, {
    task: filter,
    shards: 6,
    perShard: 10,
    line: (n) => ({ ...lineOf(n), row: { id: `${n}`, image: `file://${folder}/${n}.jpg`, pairs: pairsOf(n) } }),
  });

type Job = Awaited<ReturnType<typeof writeJob>>;
type Options = Partial<Omit<ExportRequest, "source">>;

async function exportTo(name: string, found: Job, options: Options = {}) {
  const source = await jobSource(found);
  // As many rows a part as two shards have.
  const small = { ...source, parts: () => source.parts(20) };
  const store = options.store ?? stores.at(`${folder}/${name}/`);
  const common = { format: "parquet" as Format, onlyKept: false, stores, maxImageBytes: 2 ** 26, progress: () => {} };
  return exportDataset({ ...common, ...options, source: small, store });
}

const keysIn = async (name: string) =>
  (await Array.fromAsync(stores.at(`${folder}/${name}/`).list())).map(({ key }) => key);
const bytesIn = async (store: Store) => {
  const all: Record<string, string> = {};
  for await (const { key } of store.list()) all[key] = (await store.read(key)).bytes.toString("latin1");
  return all;
};
const lines = async (name: string, key: string) => {
  const text = (await stores.at(`${folder}/${name}/`).read(key)).bytes.toString().trimEnd();
  return text.split("\n").map((line) => JSON.parse(line));
};
const labelled = Array.from({ length: ROWS }, (_, n) => n).filter((n) => n % 10 !== 9);

test("parquet: parts of whole shards, errors apart, counts at the end", async () => {
  const shown: number[] = [];
  const totals = await exportTo("out", await captions(), { progress: (rows) => shown.push(rows) });
  const bytes = expect.any(Number);
  expect(totals).toEqual({ parts: 3, rows: 60, failed: 6, written: 54, bytes });
  const parts = [0, 1, 2].map((n) => `part-00000${n}.parquet`);
  const errors = [0, 1, 2].map((n) => `errors/part-00000${n}.jsonl`);
  const stats = [0, 1, 2].map((n) => `stats/part-00000${n}.json`);
  expect(await keysIn("out")).toEqual(["_SUCCESS", ...errors, "export.json", ...parts, ...stats]);
  expect(await describeParquet(`${folder}/out/*.parquet`)).toMatchObject({
    id: "VARCHAR",
    caption: "VARCHAR",
    alt: "VARCHAR",
  });
  const rows = await query(`SELECT id, caption, score, alt FROM '${folder}/out/*.parquet' ORDER BY id::INT`);
  expect(rows).toEqual(labelled.map((n) => ({ id: `${n}`, caption: `Bild ${n} 🐕`, score: -1 - n, alt: `alt ${n}` })));
  expect(await lines("out", "errors/part-000001.jsonl")).toEqual([lineOf(29).row, lineOf(39).row]);
  expect(JSON.parse((await stores.at(`${folder}/out/`).read("_SUCCESS")).bytes.toString())).toEqual(totals);
  expect(shown).toEqual([10, 20, 20, 30, 40, 40, 50, 60, 60]);
});

test("jsonl: the rows without what the job's output alone can use", async () => {
  await exportTo("out", await captions(), { format: "jsonl" });
  const { data: _, ...first } = lineOf(0).row as ResultRow;
  expect((await lines("out", "part-000000.jsonl"))[0]).toEqual(first);
  expect(await lines("out", "part-000002.jsonl")).toHaveLength(18);
});

test("webdataset: an image that has gone or is none becomes an error, and the export goes on", async () => {
  const found = await captions();
  await rm(`${folder}/21.jpg`);
  await writeFile(`${folder}/22.jpg`, "<html>not found</html>");
  await writeFile(`${folder}/23.jpg`, "");
  const totals = await exportTo("out", found, { format: "webdataset" });
  expect(totals).toMatchObject({ parts: 3, rows: 60, failed: 9, written: 51 });
  const errors = await lines("out", "errors/part-000001.jsonl");
  const codes = Object.fromEntries(errors.map(({ id, error }) => [id, error.code]));
  expect(codes).toEqual({
    21: "IMAGE_NOT_FOUND",
    22: "IMAGE_UNREADABLE",
    23: "IMAGE_EMPTY",
    29: "IMAGE_UNREADABLE",
    39: "IMAGE_UNREADABLE",
  });
  expect(errors.find(({ id }) => id === "21")).toMatchObject({
    image: `file://${folder}/21.jpg`,
    kept: { alt: "alt 21" },
  });
  const names = execFileSync("tar", ["-tf", `${folder}/out/000001.tar`], { encoding: "utf8" })
    .trimEnd()
    .split("\n");
  expect(names).toHaveLength(45);
  expect(names.slice(0, 6)).toEqual(
    ["0000020000", "0000020004"].flatMap((key) => [`${key}.jpg`, `${key}.txt`, `${key}.json`]),
  );
});

test("a part whose rows all failed has no object; it counts", async () => {
  const line = (n: number) => (n < 20 ? lineOf(9) : lineOf(n));
  const found = await writeJob(job, { task: caption, shards: 6, perShard: 10, line });
  for (const format of ["jsonl", "parquet", "webdataset"] as const) {
    expect(await exportTo(format, found, { format })).toMatchObject({ parts: 3, rows: 60, failed: 24, written: 36 });
    const parts = (await keysIn(format)).filter((key) => /^(part-|0)/.test(key));
    expect(parts.map((key) => /\d{6}/.exec(key)![0])).toEqual(["000001", "000002"]);
  }
});

test("a cleaned dataset: a line for each text; with --kept, for each that stays", async () => {
  const found = await cleaned();
  expect(await exportTo("all", found)).toMatchObject({ rows: 60, written: 120 });
  expect(await exportTo("kept", found, { onlyKept: true })).toMatchObject({ rows: 60, written: 90 });
  const [{ n, texts }] = (await query(
    `SELECT count(*)::INT AS n, list(text ORDER BY text)[1:2] AS texts FROM '${folder}/kept/*.parquet' WHERE kept`,
  )) as [{ n: number; texts: string[] }];
  expect({ n, texts }).toEqual({ n: 90, texts: ["made 0", "made 1"] });
  await exportTo("lines", found, { format: "jsonl", onlyKept: true });
  const image = `file://${folder}/0.jpg`;
  expect((await lines("lines", "part-000000.jsonl")).slice(0, 3)).toEqual([
    { id: "0", image, text: "web 0", origin: "web", itm: 0.9 },
    { id: "0", image, text: "made 0", origin: "synthetic", itm: 0.6 },
    { id: "1", image: `file://${folder}/1.jpg`, text: "made 1", origin: "synthetic", itm: 0.6 },
  ]);
  await exportTo("tars", found, { format: "webdataset" });
  const names = execFileSync("tar", ["-tf", `${folder}/tars/000000.tar`], { encoding: "utf8" })
    .trimEnd()
    .split("\n");
  expect(names.slice(0, 4)).toEqual([
    "0000000000_000.jpg",
    "0000000000_000.txt",
    "0000000000_000.json",
    "0000000000_001.jpg",
  ]);
  expect(names).toHaveLength(30 * 3);
});

test("results that are too large to be read whole are streamed, with the same outcome", async () => {
  const vector = Array.from({ length: 2_000 }, (_, i) => Math.fround(Math.sin(i)));
  const line = (n: number) => ({ ...lineOf(n), row: { id: `${n}`, image: null, embedding: vector } });
  const found = await writeJob(job, { task: { name: "embed", texts: null }, shards: 1, perShard: 300, line });
  expect((await job.stat("results/000000.jsonl"))!.size).toBeGreaterThan(8 * 1024 * 1024);
  expect(await exportTo("out", found)).toMatchObject({ rows: 300, written: 300 });
  const sql = `SELECT id, len(embedding)::INT AS width, embedding[2] AS second FROM '${folder}/out/*.parquet'`;
  const rows = await query(`${sql} ORDER BY id::INT`);
  expect(rows).toEqual(Array.from({ length: 300 }, (_, n) => ({ id: `${n}`, width: 2_000, second: vector[1] })));
});

describe.each(["parquet", "webdataset", "jsonl"] as const)("%s, broken off", (format) => {
  test("the same request goes on, and the bytes are those of an export that was not", async () => {
    const found = await captions();
    await exportTo("whole", found, { format });
    // The store goes away after so many writes, one more each time; what was written stays.
    let left = 0;
    const target = Object.assign(
      stores.at(`${folder}/out/`),
      failingAfter(() => left--),
    );
    let attempts = 0;
    for (let isDone = false; !isDone; attempts++) {
      left = attempts;
      isDone = await exportTo("out", found, { format, store: target }).then(
        () => true,
        (thrown: CapfleetError) => {
          expect(thrown.code).toBe("STORE_UNAVAILABLE");
          return false;
        },
      );
    }
    expect(attempts).toBeGreaterThan(3);
    expect(await bytesIn(stores.at(`${folder}/out/`))).toEqual(await bytesIn(stores.at(`${folder}/whole/`)));
  });

  test("what is done is not done again", async () => {
    const found = await captions();
    const first = await exportTo("out", found, { format });
    const before = (await Array.fromAsync(stores.at(`${folder}/out/`).list())).map(({ key, etag }) => [key, etag]);
    await stores.at(`${folder}/out/`).delete("_SUCCESS");
    await stores.at(`${folder}/out/`).delete("stats/part-000001.json");
    expect(await exportTo("out", found, { format })).toEqual(first);
    const after = (await Array.fromAsync(stores.at(`${folder}/out/`).list())).map(({ key, etag }) => [key, etag]);
    const changed = after
      .filter(([key, etag]) => !before.some(([k, e]) => k === key && e === etag))
      .map(([key]) => key);
    const part = format === "webdataset" ? "000001.tar" : `part-000001.${format}`;
    expect(changed.sort()).toEqual(["_SUCCESS", "errors/part-000001.jsonl", part, "stats/part-000001.json"].sort());
  });
});

/** Writes fail once `left` says that none are left. */
function failingAfter(left: () => number): Partial<Store> {
  const real = stores.at(`${folder}/out/`);
  const check = (key: string) => {
    if (left() <= 0) throw new CapfleetError("STORE_UNAVAILABLE", `${key}: 503`);
  };
  return {
    put: async (key, body) => {
      check(key);
      return real.put(key, body);
    },
    putIfAbsent: async (key, body) => {
      check(key);
      return real.putIfAbsent(key, body);
    },
    putStream: async (key, body) => {
      check(key);
      return real.putStream(key, body);
    },
  };
}

test("a store that refuses the images stops the export with its code, and nothing counts as done", async () => {
  const found = await captions();
  const refusing = {
    at: (uri: string) => stores.at(uri),
    object: () => ({
      store: { stream: () => Promise.reject(new CapfleetError("STORE_ACCESS_DENIED", "403")) },
      key: "x",
    }),
  } as unknown as Stores;
  const running = exportTo("out", found, { format: "webdataset", stores: refusing });
  await expect(running).rejects.toMatchObject({ code: "STORE_ACCESS_DENIED" });
  expect(await keysIn("out")).toEqual(["export.json"]);
  expect(await exportTo("out", found, { format: "webdataset" })).toMatchObject({ written: 54, failed: 6 });
});

describe("refused", () => {
  test("a target that holds something else", async () => {
    const found = await captions();
    const inUse = { code: "OUTPUT_IN_USE" };
    await stores.at(`${folder}/full/`).put("a.txt", "a");
    await expect(exportTo("full", found)).rejects.toMatchObject(inUse);
    await exportTo("out", found);
    await expect(exportTo("out", found, { format: "jsonl" })).rejects.toMatchObject(inUse);
    const retried = { ...found, state: { ...found.state, retries: 1 } };
    await expect(exportTo("out", retried)).rejects.toMatchObject(inUse);
    await stores.at(`${folder}/strange/`).put("export.json", "not JSON");
    await expect(exportTo("strange", found)).rejects.toMatchObject(inUse);
  });

  test.each([
    [{ ended: null, intent: "run" }, "running"],
    [{ ended: null, intent: "paused" }, "paused"],
    [{ ended: "cancelled" }, "cancelled"],
    [{ ended: "failed" }, "failed"],
  ] as const)("a job that is not finished: %j", async (change, word) => {
    const found = await captions();
    const state = { ...found.state, ...change };
    const message = expect.stringContaining(`is ${word}, not finished`);
    await expect(exportTo("out", { ...found, state })).rejects.toMatchObject({ code: "JOB_STATE", message });
    expect(await keysIn("out")).toEqual([]);
  });

  test("texts as a dataset of images", async () => {
    const task: JobTaskSpec = { name: "embed", texts: { column: "alt" } };
    const found = await writeJob(job, { task, shards: 1, perShard: 1, line: lineOf });
    const refused = { code: "INVALID_OPTION", message: expect.stringMatching(/^--to webdataset: /) };
    await expect(exportTo("out", found, { format: "webdataset" })).rejects.toMatchObject(refused);
    expect(await keysIn("out")).toEqual([]);
  });
});

const s3 = inject("s3");

test.skipIf("skipped" in s3)("S3 to S3: the same bytes as on disk", async () => {
  const { endpoint, accessKeyId, secretAccessKey } = s3 as S3Server;
  const bucket = `export-${process.pid}`;
  const credentials = { accessKeyId, secretAccessKey };
  const client = new S3Client({ endpoint, credentials: { ...credentials }, region: "us-east-1", forcePathStyle: true });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  client.destroy();
  const found = await captions();
  const remote = new Stores([
    { prefix: `s3://${bucket}/`, region: "us-east-1", endpoint, pathStyle: true, ...credentials },
  ]);
  const copy = remote.at(`s3://${bucket}/job/`);
  for await (const { key } of job.list()) await copy.put(key, (await job.read(key)).bytes);
  for (const format of ["parquet", "webdataset", "jsonl"] as const) {
    await exportTo(format, found, { format });
    const store = remote.at(`s3://${bucket}/${format}/`);
    await exportTo(format, { ...found, store: copy }, { format, store, stores: remote });
    expect(await bytesIn(store)).toEqual(await bytesIn(stores.at(`${folder}/${format}/`)));
  }
  remote.close();
});

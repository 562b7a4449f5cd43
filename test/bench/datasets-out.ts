/**
 * Exporting finished jobs: how fast, beside a bare copy of the same objects, on a local folder and on the S3 test server;
 * and how much memory `capfleet results --to` takes of a large job.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { decodingSchema, FORMATS, type Format, type JobTaskSpec, type ResultRow } from "@capfleet/shared/contract";
import { type Store, Stores, storesFromEnv } from "@capfleet/shared/storage";
import { exportDataset } from "../../packages/producer/src/export/export.ts";
import { jobSource } from "../../packages/producer/src/export/job-source.ts";
import { type Given, writeJob } from "../support/job-objects.ts";
import { DEMO, Sandbox } from "../support/processes.ts";
import { startS3 } from "../support/s3/ceph.ts";
import type { Figure } from "./bench.ts";
import { pause, peakMb, say } from "./fleet.ts";

const caption: JobTaskSpec = { name: "caption", decoding: decodingSchema.parse({}), captions: 1, prompt: null };
/** Of the measurements of speed: rows, and for tars images of 20 KB. */
const ROWS = 200 * 512;
const IMAGES = 8 * 512;
const LARGE = 1_954 * 512;
const LARGE_IMAGES = 100 * 512;
const LARGE_VECTORS = 100 * 512;

export async function exportFigures(): Promise<Figure[]> {
  const sandbox = await Sandbox.create();
  try {
    const local = storesFromEnv({});
    const figures = await speedFigures("folder", local, `file://${sandbox.path("speed/")}`);
    figures.push(...(await s3Figures()));
    return [...figures, ...(await memoryFigures(sandbox, local))];
  } finally {
    await sandbox.cleanUp();
  }
}

async function s3Figures(): Promise<Figure[]> {
  const server = await startS3();
  if ("skipped" in server) {
    say(server.skipped);
    return [];
  }
  const { endpoint, accessKeyId, secretAccessKey, stop } = server;
  const credentials = { accessKeyId, secretAccessKey };
  try {
    const client = new S3Client({
      endpoint,
      region: "us-east-1",
      forcePathStyle: true,
      credentials: { ...credentials },
    });
    await client.send(new CreateBucketCommand({ Bucket: "bench" }));
    client.destroy();
    const stores = new Stores([{ prefix: "s3://bench/", region: "us-east-1", endpoint, ...credentials }]);
    return await speedFigures("S3", stores, "s3://bench/").finally(() => stores.close());
  } finally {
    await stop();
  }
}

/** Megabytes that are read of the job and its images, a second. */
async function speedFigures(where: string, stores: Stores, base: string): Promise<Figure[]> {
  const figures: Figure[] = [];
  const images = stores.at(`${base}images/`);
  const picture = await readFile(join(DEMO, "images/scene-003.jpg"));
  for (let n = 0; n < IMAGES; n++) await images.put(`${n}.jpg`, picture);
  for (const format of FORMATS) {
    const isTar = format === "webdataset";
    const rows = isTar ? IMAGES : ROWS;
    say(`${format}, ${where}: ${rows} rows`);
    const job = await writeJob(
      stores.at(`${base}job-${format}/`),
      captions(rows, (n) => images.uriOf(`${n}.jpg`)),
    );
    const bytes = (await sizeOf(job.store, "results/")) + (isTar ? IMAGES * picture.length : 0);
    const started = performance.now();
    const common = { format, onlyKept: false, stores, maxImageBytes: 2 ** 26, progress: () => {} };
    await exportDataset({ ...common, source: await jobSource(job), store: stores.at(`${base}to-${format}/`) });
    const exported = performance.now() - started;
    const copyStarted = performance.now();
    const to = stores.at(`${base}copy-${format}/`);
    await copy(job.store, "results/", to);
    if (isTar) await copy(images, "", to);
    const copied = performance.now() - copyStarted;
    const megabytes = bytes / 1e6;
    figures.push(
      { name: `export to ${format}, ${where}`, value: (1_000 * megabytes) / exported, unit: "MB/s" },
      { name: `bare copy of the same, object by object, ${where}`, value: (1_000 * megabytes) / copied, unit: "MB/s" },
      { name: `rows exported to ${format}, ${where}`, value: (1_000 * rows) / exported, unit: "rows/s" },
    );
  }
  return figures;
}

async function copy(from: Store, prefix: string, to: Store): Promise<void> {
  for await (const { key } of from.list({ prefix })) await to.putStream(key, (await from.stream(key)).body);
}

async function sizeOf(store: Store, prefix: string): Promise<number> {
  let bytes = 0;
  for await (const { size } of store.list({ prefix })) bytes += size;
  return bytes;
}

async function memoryFigures(sandbox: Sandbox, stores: Stores): Promise<Figure[]> {
  const images = stores.at(`file://${sandbox.path("images/")}`);
  await images.put("a.jpg", await readFile(join(DEMO, "images/scene-003.jpg")));
  const same = () => images.uriOf("a.jpg");
  const jobs: [string, Given, Format[]][] = [
    ["captions", captions(LARGE, same), ["jsonl", "parquet"]],
    ["captions", captions(LARGE_IMAGES, same), ["webdataset"]],
    ["vectors of 256", vectors(LARGE_VECTORS), ["parquet"]],
  ];
  const figures: Figure[] = [];
  for (const [n, [what, given, formats]] of jobs.entries()) {
    const out = sandbox.path(`large-${n}`);
    await writeJob(stores.at(`${out}/`), given);
    for (const format of formats) {
      const of = `${format}, ${(given.shards * given.perShard).toLocaleString("en-US")} rows of ${what}`;
      say(`memory: ${of}`);
      const started = performance.now();
      const exporter = sandbox.capfleet(sandbox.env(), "results", out, `${out}-${format}`, "--to", format);
      let isDone = false;
      const ended = exporter.ended().finally(() => {
        isDone = true;
      });
      let peak = 0;
      while (!isDone) {
        peak = Math.max(peak, peakMb(exporter.pid));
        await pause(50);
      }
      if ((await ended) !== 0) throw new Error(exporter.stderr);
      figures.push(
        { name: `exporter's peak memory, ${of}`, value: peak, unit: "MB" },
        { name: `export, ${of}`, value: (performance.now() - started) / 1_000, unit: "s" },
      );
    }
  }
  return figures;
}

function captions(rows: number, image: (n: number) => string): Given {
  const line = (n: number) => {
    const own = { id: `photos/2026/${n}.jpg`, image: image(n) };
    const row: ResultRow = { ...own, caption: `a red shoe number ${n} on a white background`, score: -1 / (n + 3) };
    return { record: own, row };
  };
  return { task: caption, shards: rows / 512, perShard: 512, line };
}

function vectors(rows: number): Given {
  const line = (n: number) => {
    const own = { id: `photos/2026/${n}.jpg`, image: `s3://photos/2026/${n}.jpg` };
    const embedding = Array.from({ length: 256 }, (_, i) => Number(Math.sin(n * 256 + i).toPrecision(9)));
    return { record: own, row: { ...own, embedding } };
  };
  return { task: { name: "embed", texts: null }, shards: rows / 512, perShard: 512, line };
}

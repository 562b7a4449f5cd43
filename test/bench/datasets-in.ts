/** Inputs: how fast each kind is planned and in how much memory, and listings against the barest loop that lists. */
import { mkdir, opendir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CreateBucketCommand, ListObjectsV2Command, S3Client } from "@aws-sdk/client-s3";
import { layout, planSchema } from "@capfleet/shared/contract";
import { type Store, Stores, storesFromEnv } from "@capfleet/shared/storage";
import pLimit from "p-limit";
import { writeManifest, writeTar } from "../support/large-inputs.ts";
import { startS3 } from "../support/s3/ceph.ts";
import type { Figure } from "./bench.ts";
import { BenchFleet, pause, peakMb, say } from "./fleet.ts";

const ROWS = 1_000_000;
const MANY_LINES = 10_000_000;
const FILES = 100_000;
const FILES_PER_FOLDER = 1_000;
const OBJECTS = 10_000;

export async function planningFigures(): Promise<Figure[]> {
  return [
    ...(await planned("prefix", FILES, "files", writeFiles)),
    ...(await planned("list.jsonl", ROWS, "lines", writeManifest)),
    ...(await planned("list.csv", ROWS, "lines", writeManifest)),
    ...(await planned("list.parquet", ROWS, "rows", writeManifest)),
    ...(await planned("shard.tar", ROWS, "samples", writeTar)),
    ...(await planned("list.jsonl", MANY_LINES, "lines", writeManifest)),
    ...(await listedFolder()),
    ...(await listedBucket()),
  ];
}

/** By `capfleet serve`, with no worker. */
async function planned(
  name: string,
  count: number,
  unit: string,
  write: (path: string, count: number) => Promise<void>,
): Promise<Figure[]> {
  const what = `${name.replace(/^.*\./, "")}, ${count.toLocaleString("en-US")} ${unit}`;
  say(`planning ${what}`);
  await using fleet = await BenchFleet.start();
  const input = fleet.sandbox.path(name);
  await write(input, count);
  await fleet.submit(input, fleet.sandbox.path("out"));
  const producer = fleet.producer();
  const out = storesFromEnv({}).at(`${fleet.sandbox.path("out")}/`);
  while (!(await out.stat(layout.plan))) await pause(100);
  const plan = planSchema.parse(JSON.parse((await out.read(layout.plan)).bytes.toString()));
  if (plan.records !== count) throw new Error(`${what}: ${plan.records} records were planned`);
  return [
    { name: `planning rate, ${what}`, value: plan.records / plan.seconds, unit: "records/s" },
    { name: `producer's peak memory, ${what}`, value: peakMb(producer.pid), unit: "MB" },
  ];
}

async function writeFiles(folder: string, count: number): Promise<void> {
  for (let from = 0; from < count; from += FILES_PER_FOLDER) {
    const inner = join(folder, String(from / FILES_PER_FOLDER).padStart(5, "0"));
    await mkdir(inner, { recursive: true });
    const names = Array.from({ length: Math.min(FILES_PER_FOLDER, count - from) }, (_, n) => `${n}.jpg`);
    await Promise.all(names.map((name) => writeFile(join(inner, name), "x")));
  }
}

async function listedFolder(): Promise<Figure[]> {
  say("listing a folder");
  await using fleet = await BenchFleet.start();
  const folder = fleet.sandbox.path("files");
  await writeFiles(folder, FILES);
  const walk = async (path: string): Promise<number> => {
    let count = 0;
    for await (const entry of await opendir(path)) {
      count += entry.isDirectory() ? await walk(join(path, entry.name)) : 1;
    }
    return count;
  };
  const of = `of a folder of ${FILES.toLocaleString("en-US")} files`;
  return [
    await timed(`listing ${of}, sorted, with sizes and ETags`, () => countOf(storesFromEnv({}).at(`${folder}/`))),
    await timed(`listing ${of}, names only (fs.opendir)`, () => walk(folder)),
  ];
}

async function listedBucket(): Promise<Figure[]> {
  say("listing a bucket");
  const server = await startS3();
  if ("skipped" in server) {
    say(server.skipped);
    return [];
  }
  const { endpoint, accessKeyId, secretAccessKey } = server;
  const credentials = { accessKeyId, secretAccessKey };
  const client = new S3Client({ endpoint, credentials, region: "us-east-1", forcePathStyle: true });
  const stores = new Stores([
    { prefix: "s3://listed/", endpoint, region: "us-east-1", pathStyle: true, ...credentials },
  ]);
  try {
    await client.send(new CreateBucketCommand({ Bucket: "listed" }));
    const store = stores.at("s3://listed/");
    const limit = pLimit(32);
    const keys = Array.from({ length: OBJECTS }, (_, n) => `photos/${n}.jpg`);
    await Promise.all(keys.map((key) => limit(() => store.put(key, "x"))));
    const bare = async () => {
      let count = 0;
      let token: string | undefined;
      do {
        const page = await client.send(new ListObjectsV2Command({ Bucket: "listed", ContinuationToken: token }));
        count += page.Contents?.length ?? 0;
        token = page.NextContinuationToken;
      } while (token !== undefined);
      return count;
    };
    const of = `of a bucket of ${OBJECTS.toLocaleString("en-US")} objects`;
    // Once for nothing: the server's first listing is slower than the others.
    await bare();
    return [
      await timed(`listing ${of}`, () => countOf(store)),
      await timed(`listing ${of}, bare loop of ListObjectsV2`, bare),
    ];
  } finally {
    stores.close();
    client.destroy();
    await server.stop();
  }
}

async function countOf(store: Store): Promise<number> {
  let count = 0;
  for await (const _ of store.list()) count += 1;
  return count;
}

async function timed(name: string, list: () => Promise<number>): Promise<Figure> {
  const started = performance.now();
  const count = await list();
  return { name, value: count / ((performance.now() - started) / 1_000), unit: "objects/s" };
}

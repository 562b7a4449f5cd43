/** Jobs over tar shards, as img2dataset leaves them: the same captions as over the images themselves. */
import { execFileSync } from "node:child_process";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { TestFleet } from "../support/fleet.ts";
import { capfleet, DEMO, Sandbox } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";
import type { S3Server } from "../support/s3/ceph.ts";

const s3Server = inject("s3");
const NAMES = ["00000.tar", "00000.parquet", "00000_stats.json", "00001.tar", "00001.parquet", "00001_stats.json"];
let sandbox: Sandbox;
let fleet: TestFleet;
let bucket: string;
let samples: { image: string; alt: string; truth: { caption: string } }[];
const at = (name: string) => sandbox.path(name);
const keyOf = (n: number) => `0000${Math.floor(n / 12)}${String(n % 12).padStart(4, "0")}`;

beforeAll(async () => {
  sandbox = await Sandbox.create();
  bucket = `capfleet-tars-${process.pid}`;
  const more = "skipped" in s3Server ? {} : { CAPFLEET_STORES: JSON.stringify([s3Settings(s3Server)]) };
  fleet = await TestFleet.start(sandbox, ["demo-caption", "demo-itm"], [], more);
  const lines = (await readFile(join(DEMO, "samples.jsonl"), "utf8")).trimEnd().split("\n");
  samples = lines.map((line) => JSON.parse(line));
  await mkdir(at("in"));
  await mkdir(at("data"));
  for (const [n, { image, truth }] of samples.entries()) {
    const base = at(`in/${keyOf(n)}`);
    await cp(join(DEMO, image), base + extname(image));
    await writeFile(`${base}.txt`, truth.caption);
    await writeFile(`${base}.json`, JSON.stringify({ url: `https://pictures.test/${n}`, caption: truth.caption }));
  }
  for (const shard of ["00000", "00001"]) {
    const pattern = `cd "$1" && tar --sort=name -cf "$2" ${shard}*`;
    execFileSync("sh", ["-c", pattern, "sh", at("in"), at(`data/${shard}.tar`)]);
    await writeFile(at(`data/${shard}.parquet`), "PAR1");
    await writeFile(at(`data/${shard}_stats.json`), "{}");
  }
});
afterAll(() => sandbox.cleanUp());

function s3Settings({ endpoint, accessKeyId, secretAccessKey }: S3Server) {
  return { prefix: `s3://${bucket}/`, region: "us-east-1", endpoint, pathStyle: true, accessKeyId, secretAccessKey };
}

const captions = () => samples.map(({ truth }, n) => [keyOf(n), truth.caption]);

test("a folder of tars: every caption as over the images; rows name tar and member", async () => {
  const rows = await fleet.rowsOf("caption", at("data"), 24, "--shard-size", "5");
  expect(rows.map(({ id, caption }) => [id, caption])).toEqual(captions());
  expect(rows[12]).toMatchObject({ image: `file://${at("data/00001.tar")}`, member: "000010000.jpg" });
});

test("a range, and the texts of the tars in another task", async () => {
  const rows = await fleet.rowsOf("itm", at("data/{00000..00001}.tar"), 24, "--text-column", "txt");
  for (const { id, itm } of rows) expect({ id, matches: itm! > 0.5 }).toEqual({ id, matches: true });
});

test("what can't be read is refused before anything is there", async () => {
  await writeFile(at("gzip.tar"), execFileSync("tar", ["-cz", "-C", at("in"), "000000000.txt"]));
  for (const [input, code] of [
    [at("gzip.tar"), "TAR_INVALID"],
    [at("data/{00000..00002}.tar"), "INPUT_NOT_FOUND"],
  ] as const) {
    const refused = await capfleet(fleet.env, "submit", "caption", input, "--out", at("nothing"));
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(new RegExp(`^${code}`)) });
  }
  for await (const { key } of storesFromEnv({})
    .at(`${at("nothing")}/`)
    .list())
    expect.fail(`${key} is there`);
  const inside = await capfleet(fleet.env, "submit", "caption", at("data"), "--out", at("data/out"));
  expect(inside).toMatchObject({ code: 2, stderr: expect.stringMatching(/^OUTPUT_INSIDE_INPUT/) });
});

test.skipIf("skipped" in s3Server)("the same on S3", async () => {
  const { endpoint, accessKeyId, secretAccessKey } = s3Server as S3Server;
  const credentials = { accessKeyId, secretAccessKey };
  const client = new S3Client({ endpoint, credentials, region: "us-east-1", forcePathStyle: true });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  client.destroy();
  const data = fleet.stores.at(`s3://${bucket}/data/`);
  for (const name of NAMES) await data.put(name, await readFile(at(`data/${name}`)));
  const store = await fleet.finish("caption", data.uri, "--out", `s3://${bucket}/out/`);
  const { rows } = await expectWhole(store, 24);
  expect(rows.map(({ id, caption }) => [id, caption])).toEqual(captions());
});

/** Jobs over tables: the same rows from CSV, TSV and Parquet; planning that is killed; what is refused. */
import { execFileSync } from "node:child_process";
import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { layout } from "@capfleet/shared/contract";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import { parquetWriteBuffer } from "hyparquet-writer";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TestFleet } from "../support/fleet.ts";
import { writeManifest } from "../support/large-inputs.ts";
import { capfleet, DEMO, Sandbox, until } from "../support/processes.ts";

interface Sample {
  id: string;
  image: string;
  alt: string;
  truth: { caption: string };
}

let sandbox: Sandbox;
let env: NodeJS.ProcessEnv;
let fleet: TestFleet;
let samples: Sample[];
const at = (name: string) => sandbox.path(name);
const out = (name: string): Store => storesFromEnv({}).at(`${at(name)}/`);

const quoted = (value: string) => `"${value.replaceAll('"', '""')}"`;
const table = (rows: Sample[], delimiter: string) =>
  [["sku", "url", "alt"], ...rows.map(({ id, image, alt }) => [id, image, `${alt},\n"again"`].map(quoted))]
    .map((fields) => fields.join(delimiter))
    .join("\r\n");
const parquet = (rows: Sample[]) =>
  Buffer.from(
    parquetWriteBuffer({
      columnData: [
        { name: "sku", data: rows.map(({ id }) => id) },
        { name: "url", data: rows.map(({ image }) => image) },
        { name: "alt", data: rows.map(({ alt }) => `${alt},\n"again"`) },
      ],
    }),
  );

beforeAll(async () => {
  sandbox = await Sandbox.create();
  env = sandbox.env();
  const lines = (await readFile(join(DEMO, "samples.jsonl"), "utf8")).trimEnd().split("\n");
  samples = lines.slice(0, 6).map((line) => JSON.parse(line));
  await mkdir(at("in/images"), { recursive: true });
  for (const { image } of samples) await cp(join(DEMO, image), at(`in/${image}`));
  await writeFile(at("in/list.csv"), table(samples, ","));
  await writeFile(at("in/list.tsv"), table(samples, "\t"));
  await writeFile(at("in/list.parquet"), parquet(samples));
  await writeFile(at("in/part-08.csv"), table(samples.slice(0, 2), ","));
  await writeFile(at("in/part-09.csv"), table(samples.slice(2, 3), ","));
  await writeFile(at("in/part-10.csv"), table(samples.slice(3), ","));
  await layOutAsImg2dataset();
  fleet = await TestFleet.start(sandbox, ["demo-caption", "demo-itm"]);
});
afterAll(() => sandbox.cleanUp());

/** Tars, and beside each its metadata and counts. */
async function layOutAsImg2dataset(): Promise<void> {
  await mkdir(at("in/laion"));
  await mkdir(at("stage"));
  for (const shard of [0, 1]) {
    const part = samples.slice(shard * 3, shard * 3 + 3);
    const names: string[] = [];
    for (const [n, { image, alt }] of part.entries()) {
      const key = `0000${shard}000${n}`;
      await cp(join(DEMO, image), at(`stage/${key}${extname(image)}`));
      await writeFile(at(`stage/${key}.txt`), alt);
      names.push(`${key}${extname(image)}`, `${key}.txt`);
    }
    execFileSync("tar", ["-cf", at(`in/laion/0000${shard}.tar`), "-C", at("stage"), ...names]);
    const beside = part.map((sample) => ({ ...sample, image: `../images/${basename(sample.image)}` }));
    await writeFile(at(`in/laion/0000${shard}.parquet`), parquet(beside));
    await writeFile(at(`in/laion/0000${shard}_stats.json`), "{}");
  }
}

const COLUMNS = ["--image-column", "url", "--id-column", "sku", "--keep", "alt"];

test.each(["list.csv", "list.tsv", "list.parquet", "part-{08..10}.csv", "laion/{00000..00001}.parquet"])(
  "%s: each row's caption, id and kept column",
  async (input) => {
    const rows = await fleet.rowsOf("caption", at(`in/${input}`), samples.length, ...COLUMNS);
    expect(rows.map(({ id, caption, kept }) => [id, caption, kept])).toEqual(
      samples.map(({ id, alt, truth }) => [id, truth.caption, { alt: `${alt},\n"again"` }]),
    );
  },
);

test("an img2dataset folder is its tars; Parquet files without them are a manifest", async () => {
  const rows = await fleet.rowsOf("caption", at("in/laion"), samples.length, "--keep", "txt");
  expect(rows.map(({ caption, kept }) => [caption, kept])).toEqual(
    samples.map(({ alt, truth }) => [truth.caption, { txt: alt }]),
  );

  await mkdir(at("in/metadata/part.parquet"), { recursive: true });
  const options = [...COLUMNS.slice(0, 4), "--text-column", "alt", "--model", "demo-itm"];
  const beside = samples.map((sample) => ({ ...sample, image: `../../${sample.image}` }));
  await writeFile(at("in/metadata/part.parquet/0.parquet"), parquet(beside));
  const matched = await fleet.rowsOf("itm", at("in/metadata"), samples.length, ...options);
  expect(matched.map(({ id }) => id)).toEqual(samples.map(({ id }) => id));
});

describe("a planner that is killed", () => {
  test.each(["csv", "parquet"])("within a .%s: the next one goes on where it ended", async (ending) => {
    const RECORDS = 24_000;
    const redis = await sandbox.redis();
    const own = { ...env, CAPFLEET_REDIS_URL: redis.url, CAPFLEET_STATE: at(`state-${ending}`) };
    await writeManifest(at(`in/large.${ending}`), RECORDS);
    const job = [at(`in/large.${ending}`), "--out", at(`killed-${ending}`), "--model", "demo-caption"];
    const submitted = await capfleet(own, "submit", "caption", ...job, "--shard-size", "20");
    expect(submitted).toMatchObject({ code: 0, stderr: "" });
    const store = out(`killed-${ending}`);
    const producer = sandbox.producer(own);
    await until("some of the plan", () => store.stat(layout.shard(50)));
    await producer.kill("SIGKILL");
    expect(await store.stat(layout.plan)).toBeNull();
    const before = (await store.stat(layout.shard(50)))!.etag;
    const next = sandbox.producer(own);
    await until("the whole plan", () => store.stat(layout.plan));
    await next.kill("SIGKILL");
    expect((await store.stat(layout.shard(50)))!.etag).toBe(before);
    const ids: string[] = [];
    for await (const { key } of store.list({ prefix: layout.shards })) {
      const lines = (await store.read(key)).bytes.toString("utf8").trimEnd().split("\n");
      for (const line of lines.slice(0, -1)) ids.push(JSON.parse(line).id);
    }
    expect(ids).toEqual(Array.from({ length: RECORDS }, (_, n) => `photo-${n}`));
  });
});

test.each<[string, string | Buffer, string[], RegExp]>([
  ["a.csv", "image,id\na.jpg\n", [], /^MANIFEST_INVALID: .*a\.csv line 2: it has 1 fields, and the header 2/m],
  ["a.jsonl", '{"id":1,"image":"a"}\n{"image":"b"}', [], /^MANIFEST_INVALID: .*a\.jsonl line 1, .*a\.jsonl line 2/m],
  ["a.jsonl", Buffer.from("1f8b08", "hex"), [], /^MANIFEST_INVALID: .*a\.jsonl: it is compressed with gzip/m],
  ["a.parquet", "PAR1 and so on", [], /^MANIFEST_INVALID: .*a\.parquet: it is cut off/m],
  ["a.csv.gz", "x", [], /^INPUT_NOT_FOUND: .*a\.csv\.gz is a file, compressed: unpack it/m],
  ["a.csv", "image\n", [], /^INPUT_EMPTY: .*a\.csv/m],
])("%s with %j is refused before anything is there", async (name, body, options, message) => {
  await writeFile(at(name), body);
  const refused = await capfleet(env, "submit", "caption", at(name), "--out", at("nothing"), ...options);
  expect(refused.stderr).toMatch(message);
  expect(refused.code).toBe(2);
  await expect(readdir(at("nothing"))).rejects.toMatchObject({ code: "ENOENT" });
});

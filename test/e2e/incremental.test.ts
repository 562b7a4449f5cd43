/** Incremental runs as a user types them: on one machine with a folder, and by a fleet with S3. */
import { execFileSync } from "node:child_process";
import { copyFile, cp, mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { datasetRootSchema, type ResultRow } from "@capfleet/shared/contract";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import { afterEach, beforeEach, describe, expect, inject, test } from "vitest";
import { flakyProxy } from "../support/flaky-proxy.ts";
import { capfleet, capfleetProcess, DEMO, Sandbox, until } from "../support/processes.ts";
import { expectWhole } from "../support/rows.ts";
import type { S3Server } from "../support/s3/ceph.ts";

const CAPTIONS: Record<string, string> = {};
let sandbox: Sandbox;
let env: NodeJS.ProcessEnv;

beforeEach(async () => {
  sandbox = await Sandbox.create();
  env = sandbox.env();
  for (const line of (await readFile(join(DEMO, "samples.jsonl"), "utf8")).trimEnd().split("\n")) {
    const { image, truth } = JSON.parse(line);
    CAPTIONS[image.replace("images/", "")] = truth.caption;
  }
});
afterEach(() => sandbox.cleanUp());

const sample = (n: number) => Object.keys(CAPTIONS)[n]!;
const picture = (n: number) => join(DEMO, "images", sample(n));

/** Runs a command that has to succeed; returns what it prints. */
async function done(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await capfleet(env, ...args);
  if (code !== 0) throw new Error(`capfleet ${args.join(" ")}: exit code ${code}: ${stderr}`);
  return stdout;
}

/** The dataset as a reader sees it: keys and captions. */
async function view(root: string): Promise<[string, string | undefined][]> {
  const rows = (await done("results", root)).split("\n").filter((line) => line !== "");
  return rows
    .map((line) => JSON.parse(line) as ResultRow)
    .map(({ id, caption, error }) => [id, caption ?? error!.code]);
}

async function currentRun(root: Store): Promise<Store> {
  const { current } = datasetRootSchema.parse(JSON.parse((await root.read("dataset.json")).bytes.toString()));
  return storesFromEnv(env).at(root.uriOf(`runs/${current!.run}/`));
}

/** Every file below a folder, and when it was written. */
async function files(folder: string): Promise<string[]> {
  const names = (await readdir(folder, { recursive: true })).sort();
  return Promise.all(names.map(async (name) => `${name} ${(await stat(join(folder, name))).mtimeMs}`));
}

test("a folder, on one machine: what is new, nothing, one more, one replaced, one deleted", async () => {
  const photos = sandbox.path("photos");
  const root = sandbox.path("labels");
  const store = storesFromEnv({}).at(`${root}/`);
  await mkdir(photos);
  for (const n of [0, 1, 2]) await copyFile(picture(n), join(photos, sample(n)));
  await copyFile(join(DEMO, "README.md"), join(photos, "broken.jpg"));
  const command = ["run", "caption", photos, "--out", root, "--incremental"];
  expect(await done(...command)).toContain("finished: 3 rows labelled, 1 failed");
  const broken: [string, string] = ["broken.jpg", "IMAGE_UNREADABLE"];
  const captions = (...all: number[]) => all.map((n) => [sample(n), CAPTIONS[sample(n)]]);
  expect(await view(root)).toEqual([broken, ...captions(0, 1, 2)]);
  expect(await done("results", root, "--errors")).toMatch(/^\{"id":"broken.jpg".*\n$/);

  const before = await files(sandbox.folder);
  expect(await done(...command)).toMatch(/^nothing new: 4 images, all labelled as of run 20.*Z\n$/);
  expect(await files(sandbox.folder)).toEqual(before);

  await copyFile(picture(3), join(photos, sample(3)));
  await copyFile(picture(4), join(photos, sample(1)));
  await rm(join(photos, sample(0)));
  expect(await done(...command)).toContain("finished: 2 rows labelled, 0 failed");
  await expectWhole(await currentRun(store), 2);
  const now = [broken, [sample(1), CAPTIONS[sample(4)]], ...captions(2, 3)];
  expect(await view(root)).toEqual(now);

  await rm(join(photos, "broken.jpg"));
  expect(await done(...command)).toContain("finished: 0 rows labelled, 0 failed");
  await expectWhole(await currentRun(store), 0);
  expect(await view(root)).toEqual(now.slice(1));

  const status = await done("status", root);
  expect(status).toMatch(/images {3}3 images, as of run 20/);
  expect(status.match(/^ {2}20.*Z {2}job_\w+ {2}caption {2}finished {2}\d\/\d \(100%\)/gm)).toHaveLength(3);
  const refused = await capfleet(env, "pause", root);
  expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(/^JOB_NOT_FOUND: .* is a dataset/) });
  const plain = await capfleet(env, "run", "caption", photos, "--out", root);
  expect(plain).toMatchObject({ code: 2, stderr: expect.stringMatching(/^OUTPUT_IN_USE: .*--incremental/) });

  // What the runs have made together, as one dataset.
  const exported = sandbox.path("exported");
  expect(await done("results", root, "--to", "webdataset", exported)).toContain("exported: 3 samples of 3 records");
  const names = execFileSync("tar", ["-tf", join(exported, "000000.tar")], { encoding: "utf8" });
  expect(names.match(/^\d+\.txt$/gm)).toEqual(["0000000000.txt", "0000000001.txt", "0000000002.txt"]);
  const texts = execFileSync("tar", ["-xOf", join(exported, "000000.tar"), "--wildcards", "*.json"], {
    encoding: "utf8",
  });
  const ids = now.slice(1).map(([id]) => id);
  for (const id of ids) expect(texts).toContain(`"id":${JSON.stringify(id)}`);

  const [oldest] = await readdir(join(root, "runs"));
  const run = await capfleet(env, "delete", join(root, "runs", oldest!), "--yes");
  expect(run).toMatchObject({ code: 2, stderr: expect.stringMatching(/^JOB_STATE: .* is a run of /) });
  expect(await done("delete", root, "--yes")).toMatch(/^deleted .*, 3 runs$/m);
  expect(await Array.fromAsync(store.list())).toEqual([]);
});

test("killed in the middle, the same command goes on with its run; another one is refused until then", async () => {
  const photos = sandbox.path("photos");
  const root = sandbox.path("labels");
  await mkdir(photos);
  for (let n = 0; n < 240; n++) await cp(picture(n % 24), join(photos, `${String(n).padStart(3, "0")}.jpg`));
  const command = ["run", "caption", photos, "--out", root, "--incremental", "--shard-size", "20"];
  const running = sandbox.capfleet(env, ...command);
  const store = storesFromEnv({}).at(`${root}/`);
  await until("the first commit", async () => {
    for await (const { key } of store.list({ prefix: "runs/" })) if (key.includes("/results/")) return true;
    return false;
  });
  await running.kill("SIGKILL");
  expect(await view(root)).toEqual([]);
  expect(await done("status", root)).toMatch(/pending {2}20/);
  const busy = await capfleet(env, ...command, "--prompt", "two");
  expect(busy).toMatchObject({ code: 2, stderr: expect.stringMatching(/^DATASET_BUSY: .*job_/) });

  const again = await capfleet(env, ...command);
  expect(again).toMatchObject({ code: 0, stderr: expect.stringContaining("going on with") });
  await expectWhole(await currentRun(store), 240);
  const expected = Array.from({ length: 240 }, (_, n) => [
    `${String(n).padStart(3, "0")}.jpg`,
    CAPTIONS[sample(n % 24)],
  ]);
  expect(await view(root)).toEqual(expected);
  expect(await readdir(join(root, "runs"))).toHaveLength(1);
});

const s3Server = inject("s3");

describe.skipIf("skipped" in s3Server)("a bucket, by a fleet", () => {
  test("an unchanged one costs a listing; one more image costs one; of two commands one has its way", async () => {
    const { endpoint, accessKeyId, secretAccessKey } = s3Server as S3Server;
    const proxy = await flakyProxy(endpoint);
    sandbox.atEnd(() => proxy.close());
    const bucket = `incremental-${Date.now()}`;
    const credentials = { accessKeyId, secretAccessKey };
    const client = new S3Client({
      endpoint,
      region: "us-east-1",
      forcePathStyle: true,
      credentials: { ...credentials },
    });
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
    client.destroy();
    const settings = (through: string) => {
      const prefix = { prefix: `s3://${bucket}/`, region: "us-east-1", pathStyle: true, ...credentials };
      return { CAPFLEET_STORES: JSON.stringify([{ ...prefix, endpoint: through }]) };
    };
    const redis = await sandbox.redis();
    env = { ...env, ...settings(endpoint), CAPFLEET_REDIS_URL: redis.url };
    const counted = { ...env, ...settings(proxy.endpoint) };
    const stores = storesFromEnv(env);
    const source = stores.at(`s3://${bucket}/in/`);
    const root = stores.at(`s3://${bucket}/out/`);
    const put = async (key: string, n: number) => source.put(key, await readFile(picture(n)));
    await put("\uffff.jpg", 0);
    await put("\u{1f98a} ä?#%.jpg", 1);
    await put("a/b.jpg", 2);
    await put("a.jpg", 3);
    sandbox.producer(env);
    const worker = sandbox.worker(env);
    const command = ["submit", "caption", `s3://${bucket}/in/`, "--out", `s3://${bucket}/out/`, "--incremental"];
    const caption = (n: number) => CAPTIONS[sample(n)];
    await done(...command, "--wait");
    const first = [
      ["a.jpg", caption(3)],
      ["a/b.jpg", caption(2)],
      ["\uffff.jpg", caption(0)],
      ["\u{1f98a} ä?#%.jpg", caption(1)],
    ];
    expect(await view(root.uri)).toEqual(first);

    proxy.requests = [];
    const nothing = await capfleet(counted, ...command, "--wait", "--json");
    expect(JSON.parse(nothing.stdout)).toMatchObject({ id: null, out: root.uri, nothingNew: { entries: 4 } });
    const [lists, reads] = [/list-type=2/, /^(GET|HEAD) .*\/out\/(dataset\.json|index\/.*\/000000\.jsonl)/];
    expect(proxy.requests.length).toBeGreaterThan(0);
    expect(proxy.requests.filter((request) => !lists.test(request) && !reads.test(request))).toEqual([]);
    expect(proxy.requests.filter((request) => !/^(GET|HEAD) /.test(request))).toEqual([]);
    expect(proxy.requests.length).toBeLessThan(10);

    await put("a0.jpg", 4);
    await source.delete("a/b.jpg");
    await done(...command, "--wait");
    await expectWhole(await currentRun(root), 1);
    expect(await view(root.uri)).toEqual([first[0], ["a0.jpg", caption(4)], ...first.slice(2)]);

    // Without a worker neither can have ended before the other has begun.
    await worker.kill("SIGTERM");
    const both = await Promise.all(
      ["two", "three"].map((prompt) => capfleetProcess(env, ...command, "--prompt", prompt)),
    );
    expect(both.map(({ code }) => code).sort()).toEqual([0, 2]);
    expect(both.find(({ code }) => code === 2)!.stderr).toMatch(/^DATASET_BUSY/);
    sandbox.worker(env);
    await done("watch", both.find(({ code }) => code === 0)!.stdout.trim());
    await expectWhole(await currentRun(root), 4);
    const prompt = both[0]!.code === 0 ? /^two/ : /^three/;
    for (const [, text] of await view(root.uri)) expect(text).toMatch(prompt);
    stores.close();
  });
});

/**
 * A fleet whose producer and worker have only what infra/ gives them: Redis over TLS, a user each by infra/redis/users.acl,
 * and a bucket user each by infra/policies/. It does all that a fleet does, and what it has no need of is refused.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CreateBucketCommand, PutBucketPolicyCommand, S3Client } from "@aws-sdk/client-s3";
import { checkRedis } from "@capfleet/shared/queues";
import { Stores } from "@capfleet/shared/storage";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import type { JobView } from "../../packages/producer/src/api/schemas.ts";
import { findServer } from "../../packages/producer/src/local/redis.ts";
import { serving } from "../support/api.ts";
import { capfleet, DEMO, freePort, Sandbox, until } from "../support/processes.ts";
import { readRows } from "../support/rows.ts";
import type { Keys } from "../support/s3/ceph.ts";
import { CERTIFICATE, KEY } from "../support/tls/server.ts";
import { INFRA, infraFile, metricNames } from "./files.ts";

const s3 = inject("s3");
const [producerKeys, workerKeys] = [inject("s3Other"), inject("s3Third")];
const IMAGES = 6;
const stamp = Date.now();
const buckets = { photos: `photos-${stamp}`, labels: `labels-${stamp}` };
let sandbox: Sandbox;
let port: number;
/** Where images, outputs and the state root are: in buckets, or in folders where there is no S3 server. */
let photos: string;
let labels: string;
let producer: NodeJS.ProcessEnv;
let worker: NodeJS.ProcessEnv;
let metrics: string;

beforeAll(async () => {
  sandbox = await Sandbox.create();
  port = await startRedis();
  const hasBuckets = !("skipped" in s3) && producerKeys !== null && workerKeys !== null;
  photos = hasBuckets ? `s3://${buckets.photos}/` : `file://${sandbox.path("photos")}/`;
  labels = hasBuckets ? `s3://${buckets.labels}/` : `file://${sandbox.path("labels")}/`;
  if (hasBuckets) await makeBuckets();
  else for (const folder of ["photos", "labels"]) await mkdir(sandbox.path(folder));
  producer = envOf("producer", producerKeys);
  worker = envOf("worker", workerKeys);
  const lines = (await readFile(join(DEMO, "samples.jsonl"), "utf8")).split("\n").slice(0, IMAGES);
  const samples = lines.map((line) => JSON.parse(line) as { image: string });
  for (const [n, { image }] of samples.entries()) await addPhoto(`${n}.jpg`, image);
});
afterAll(() => sandbox.cleanUp());

test("it plans, labels, answers and deletes", async () => {
  const { api } = await serving(sandbox, producer);
  sandbox.worker(worker);
  await addFile("list.jsonl", [...Array(IMAGES + 1).keys()].map((n) => `{"image": "${n}.jpg"}`).join("\n"));
  const out = `${labels}all/`;
  const asked = { task: "caption", input: `${photos}list.jsonl`, output: out, format: "webdataset" };
  const { body: job } = await api.submit(asked);
  const state = async () => (await api.get<JobView>(`/v1/jobs/${job.id}`)).body.state;
  await until("the job to end", async () => (await state()) === "finished", 150);
  const rows = await readRows(owner().at(out));
  // A bucket whose listing is forbidden says 403 for what is missing: a job would wait for ever.
  expect(rows.map(({ error }) => error?.code)).toEqual([...Array(IMAGES).fill(undefined), "IMAGE_NOT_FOUND"]);

  const picture = { task: "caption", image: `${photos}0.jpg` };
  expect((await api.post("/v1/infer", picture)).body).toMatchObject({ caption: rows[0]!.caption });
  metrics = (await api.get<string>("/metrics")).body;

  expect(await capfleet(producer, "delete", out, "--yes")).toMatchObject({ code: 0 });
  expect(await Array.fromAsync(owner().at(out).list())).toEqual([]);
  expect(await refusals()).toEqual([]);
});

test("what /metrics prints has every metric of the dashboard and the alerts", async () => {
  const printed = new Set([...metrics.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name!));
  for (const file of ["chart/files/alerts.yaml", "chart/files/dashboard.json"]) {
    const used = metricNames(await infraFile(file));
    expect(used.length, file).toBeGreaterThan(5);
    expect(
      used.filter((name) => !printed.has(name)),
      file,
    ).toEqual([]);
  }
});

describe("Redis refuses", () => {
  const OTHERS = ["other-fleet:workers", "session:1"];

  test.each(["producer", "worker"])("the %s what would read or end more than its fleet", async (user) => {
    const redis = connect(user);
    const commands = [
      ["config", "get", "*"],
      ["flushall"],
      ["keys", "*"],
      ["scan", "0"],
      ["shutdown"],
      ["acl", "list"],
    ];
    const keys = OTHERS.flatMap((key) => [
      ["get", key],
      ["set", key, "1"],
      ["eval", "return redis.call('del', KEYS[1])", "1", key],
    ]);
    for (const [command, ...args] of [...commands, ...keys, ["publish", "elsewhere", "x"], ["monitor"]]) {
      await expect(redis.call(command!, ...args), `${command} ${args}`).rejects.toThrow(/NOPERM|ACL failure in script/);
    }
    redis.disconnect();
  });

  test("the worker what is the reconciler's", async () => {
    const redis = connect("worker");
    for (const key of ["capfleet:lease:reconciler", "capfleet:figures", "capfleet:progress:job_1"]) {
      await expect(redis.del(key), key).rejects.toThrow("NOPERM");
    }
    redis.disconnect();
  });

  test("whoever has no password, a wrong one, or does not check who it is", async () => {
    await expect(connect("default", "").ping()).rejects.toThrow();
    await expect(connect("worker", "wrong").ping()).rejects.toThrow();
    const stranger = checkRedis(producer.CAPFLEET_REDIS_URL!);
    await expect(stranger).rejects.toMatchObject({
      code: "REDIS_UNREACHABLE",
      message: expect.stringMatching("certificate"),
    });
  });
});

describe.skipIf("skipped" in s3 || !producerKeys || !workerKeys)("the buckets refuse", () => {
  const as = (keys: Keys | null) => stores(keys).at(labels);
  const denied = { code: "STORE_ACCESS_DENIED" };

  test("keys and models of the producer's making", async () => {
    const { code, stderr } = await capfleet(producer, "keys", "create", "--name", "mine", "--scope", "admin");
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringMatching(/^STORE_ACCESS_DENIED/) });
    await expect(as(producerKeys).put(".capfleet/models/mine.json", "{}")).rejects.toMatchObject(denied);
  });

  test("the worker what is not a shard's", async () => {
    const state = as(workerKeys);
    for (const key of [
      ".capfleet/keys/0123456789ab.json",
      ".capfleet/jobs/job_1.json",
      "all/job.json",
      "all/_SUCCESS",
    ]) {
      await expect(state.put(key, "{}"), key).rejects.toMatchObject(denied);
    }
    await owner().at(labels).put(".capfleet/webhooks/job_1.json", "a secret");
    await expect(state.read(".capfleet/webhooks/job_1.json")).rejects.toMatchObject(denied);
    await owner().at(labels).put("all/results/000000.jsonl", "{}");
    await expect(state.delete("all/results/000000.jsonl")).rejects.toMatchObject(denied);
    // What a retry does.
    const { etag } = await state.read("all/results/000000.jsonl");
    expect(await state.putIfMatch("all/results/000000.jsonl", "{}", etag)).toMatchObject({ outcome: "written" });
    await state.put("all/data/000000-a.tar", "");
    await state.delete("all/data/000000-a.tar");
  });

  test.each([
    ["producer", producerKeys],
    ["worker", workerKeys],
  ])("the %s to write where it reads", async (_, keys) => {
    await expect(stores(keys).at(photos).put("0.jpg", "x")).rejects.toMatchObject(denied);
    await expect(stores(keys).at(photos).delete("0.jpg")).rejects.toMatchObject(denied);
  });
});

/** `redis-server` with the files of infra/redis, at a free port. */
async function startRedis(): Promise<number> {
  const free = await freePort();
  const hashed = (await infraFile("redis/users.acl"))
    .replace("PRODUCER_SHA256", sha256("producer-password"))
    .replace("WORKER_SHA256", sha256("worker-password"));
  // Who watches what is refused is nobody in a real fleet.
  await writeFile(sandbox.path("users.acl"), `${hashed}user watcher on >watcher ~* &* +@all\n`);
  const files = [join(INFRA, "redis/redis.conf"), "--include", join(INFRA, "redis/tls.conf")];
  const here = ["--aclfile", sandbox.path("users.acl"), "--tls-cert-file", CERTIFICATE, "--tls-key-file", KEY];
  const address = ["--bind", "127.0.0.1", "--tls-port", String(free)];
  const server = spawn(await findServer(), [...files, ...here, ...address], { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [server.stdout, server.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
  }
  sandbox.atEnd(async () => {
    if (server.exitCode !== null) return;
    server.kill("SIGKILL");
    await once(server, "exit");
  });
  await until("redis", () => {
    if (server.exitCode !== null) throw new Error(said);
    return said.includes("Ready to accept connections");
  });
  return free;
}

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

function connect(user: string, password = `${user}-password`): Redis {
  const tls = { host: "localhost", port, username: user, password, tls: { ca: readFileSync(CERTIFICATE) } };
  const redis = new Redis({ ...tls, maxRetriesPerRequest: 0, retryStrategy: () => null });
  redis.on("error", () => {});
  sandbox.atEnd(async () => redis.disconnect());
  return redis;
}

/** What Redis has refused so far: `user: command`. */
async function refusals(): Promise<string[]> {
  const redis = connect("watcher", "watcher");
  const log = (await redis.call("ACL", "LOG")) as (string | number)[][];
  redis.disconnect();
  return log.map((entry) => `${entry[entry.indexOf("username") + 1]}: ${entry[entry.indexOf("object") + 1]}`);
}

/** `keys`: whose requests they are; null: the owner's, or nobody's where there are no buckets. */
function stores(keys: Keys | null): Stores {
  if ("skipped" in s3) return new Stores();
  const { endpoint, accessKeyId, secretAccessKey } = { ...s3, ...keys };
  return new Stores([], { endpoint, region: "us-east-1", accessKeyId, secretAccessKey });
}
const owner = () => stores(null);

async function makeBuckets(): Promise<void> {
  if ("skipped" in s3) return;
  const { endpoint, accessKeyId, secretAccessKey } = s3;
  const credentials = { accessKeyId, secretAccessKey };
  const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, credentials });
  const users = { "user/other": "policies/producer.json", "user/third": "policies/worker.json" };
  for (const [name, bucket] of Object.entries(buckets)) {
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
    const policies = Object.entries(users).map(async ([user, file]) => bucketPolicy(await infraFile(file), user, name));
    // Ceph's objects belong to who has written them, and not to the bucket's owner.
    const Principal = { AWS: ["arn:aws:iam:::user/test"] };
    const own = { Sid: "Owner", Effect: "Allow", Principal, Action: ["s3:*"], Resource: [`arn:aws:s3:::${bucket}/*`] };
    const Policy = JSON.stringify({ Version: "2012-10-17", Statement: [own, ...(await Promise.all(policies)).flat()] });
    await client.send(new PutBucketPolicyCommand({ Bucket: bucket, Policy }));
  }
  client.destroy();
}

interface Statement {
  Sid: string;
  Resource: string[];
}

/** A user's policy as statements of a bucket's policy: for this user, and of the resources those in this bucket. */
function bucketPolicy(text: string, user: string, name: string): object[] {
  const { Statement: statements } = JSON.parse(text) as { Statement: Statement[] };
  return statements.flatMap((statement) => {
    const Resource = statement.Resource.filter((resource) => resource.split(":::")[1]!.split("/")[0] === name).map(
      (resource) => resource.replace(/photos|labels/, (bucket) => buckets[bucket as keyof typeof buckets]),
    );
    const Principal = { AWS: [`arn:aws:iam:::${user}`] };
    return Resource.length > 0 ? [{ ...statement, Sid: user.slice(5) + statement.Sid, Principal, Resource }] : [];
  });
}

/** All that a process of the fleet is given. */
function envOf(user: "producer" | "worker", keys: Keys | null): NodeJS.ProcessEnv {
  const aws = "skipped" in s3 ? {} : { AWS_ENDPOINT_URL_S3: s3.endpoint, AWS_REGION: "us-east-1" };
  const mine = keys && { AWS_ACCESS_KEY_ID: keys.accessKeyId, AWS_SECRET_ACCESS_KEY: keys.secretAccessKey };
  return sandbox.env({
    ...aws,
    ...mine,
    CAPFLEET_STATE: `${labels}.capfleet/`,
    CAPFLEET_REDIS_URL: `rediss://${user}:${user}-password@localhost:${port}`,
    NODE_EXTRA_CA_CERTS: CERTIFICATE,
  });
}

const addPhoto = async (name: string, sample: string) => addFile(name, await readFile(join(DEMO, sample)));
const addFile = (name: string, body: Uint8Array | string) => owner().at(photos).put(name, body);

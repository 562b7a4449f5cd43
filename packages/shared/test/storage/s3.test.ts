/** What only S3 has: credentials, buckets, policies, multipart uploads, folder markers. On the real server. */
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  DeleteBucketPolicyCommand,
  ListMultipartUploadsCommand,
  PutBucketPolicyCommand,
  PutBucketRequestPaymentCommand,
  PutObjectCommand,
} from "@aws-sdk/client-s3";
import { afterAll, afterEach, beforeAll, describe, expect, inject, test, vi } from "vitest";
import type { S3Server } from "../../../../test/support/s3/ceph.ts";
import { probeConditionalWrites, type Store, Stores, storesFromEnv } from "../../src/storage/index.ts";
import { adminClient, createBucket, removeBucket } from "./backends.ts";

const found = inject("s3");

describe.skipIf("skipped" in found)("S3", () => {
  const server = found as S3Server;
  const bucket = `capfleet-test-${randomUUID()}`;
  const prefix = `s3://${bucket}/`;
  let store: Store;
  beforeAll(async () => {
    await createBucket(bucket);
    store = new Stores([{ prefix, ...server }]).at(prefix);
    await store.put("x", "hello");
  });
  afterEach(() => vi.unstubAllEnvs());
  afterAll(() => removeBucket(bucket));

  test.each([
    ["a wrong secret", { secretAccessKey: "wrong" }, "SignatureDoesNotMatch"],
    ["an unknown key", { accessKeyId: "nobody" }, "InvalidAccessKeyId"],
  ])("%s is STORE_CREDENTIALS, whatever is asked", async (_, wrong, name) => {
    const other = new Stores([{ prefix, ...server, ...wrong }]).at(prefix);
    for (const failed of operations(other)) {
      const error = await failed().then(
        () => undefined,
        (thrown: Error) => thrown,
      );
      expect(error).toMatchObject({ code: "STORE_CREDENTIALS", message: expect.stringContaining(name) });
      expect(error?.message).not.toContain(server.secretAccessKey);
    }
  });

  test("no credentials anywhere are STORE_CREDENTIALS", async () => {
    emptyAwsEnvironment();
    const other = new Stores([{ prefix, endpoint: server.endpoint }]).at(prefix);
    for (const failed of operations(other)) await expect(failed()).rejects.toMatchObject({ code: "STORE_CREDENTIALS" });
  });

  test("a bucket that isn't there is STORE_BUCKET_NOT_FOUND, whatever is asked", async () => {
    const other = new Stores([{ prefix: "s3://no-such-bucket/", ...server }]).at("s3://no-such-bucket/");
    for (const failed of operations(other))
      await expect(failed()).rejects.toMatchObject({
        code: "STORE_BUCKET_NOT_FOUND",
        message: expect.stringContaining("s3://no-such-bucket/"),
      });
  });

  test.skipIf(inject("s3Other") === null)(
    "a bucket whose requester pays takes every request of one who will",
    async () => {
      const paid = `capfleet-test-${randomUUID()}`;
      await createBucket(paid);
      const client = adminClient();
      const resources = [`arn:aws:s3:::${paid}/*`, `arn:aws:s3:::${paid}`];
      const statement = { Effect: "Allow", Principal: "*", Action: "s3:*", Resource: resources };
      const policy = JSON.stringify({ Version: "2012-10-17", Statement: [statement] });
      await client.send(new PutBucketPolicyCommand({ Bucket: paid, Policy: policy }));
      const RequestPaymentConfiguration = { Payer: "Requester" as const };
      await client.send(new PutBucketRequestPaymentCommand({ Bucket: paid, RequestPaymentConfiguration }));
      const entry = { prefix: `s3://${paid}/`, ...server, ...inject("s3Other") };
      const [mean, willing] = [new Stores([entry]), new Stores([{ ...entry, requesterPays: true }])];
      await willing.at(entry.prefix).put("x", "hello");
      // Ceph refuses only what reads. That the others say it as well is in s3-faults.test.ts.
      const store = mean.at(entry.prefix);
      const reads = [() => store.stat("x"), () => store.read("x"), () => Array.fromAsync(store.list())];
      for (const failed of reads)
        await expect(failed()).rejects.toMatchObject({
          code: "STORE_ACCESS_DENIED",
          fix: expect.stringContaining("requesterPays"),
        });
      for (const passed of operations(willing.at(entry.prefix))) await passed();
      for (const stores of [mean, willing]) stores.close();
      client.destroy();
      await removeBucket(paid);
    },
  );

  test("what a policy denies is STORE_ACCESS_DENIED", async () => {
    const closed = `capfleet-test-${randomUUID()}`;
    await createBucket(closed);
    const other = new Stores([{ prefix: `s3://${closed}/`, ...server }]).at(`s3://${closed}/`);
    await other.put("x", "x");
    const resources = [`arn:aws:s3:::${closed}/*`, `arn:aws:s3:::${closed}`];
    const action = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"];
    const statement = { Effect: "Deny", Principal: "*", Action: action, Resource: resources };
    const policy = JSON.stringify({ Version: "2012-10-17", Statement: [statement] });
    await adminClient().send(new PutBucketPolicyCommand({ Bucket: closed, Policy: policy }));
    for (const failed of operations(other))
      await expect(failed()).rejects.toMatchObject({
        code: "STORE_ACCESS_DENIED",
        message: expect.stringContaining(`s3://${closed}/`),
      });
    await adminClient().send(new DeleteBucketPolicyCommand({ Bucket: closed }));
    await removeBucket(closed);
  });

  test("credentials and endpoint from the environment and a profile", async () => {
    emptyAwsEnvironment();
    vi.stubEnv("AWS_ACCESS_KEY_ID", server.accessKeyId);
    vi.stubEnv("AWS_SECRET_ACCESS_KEY", server.secretAccessKey);
    for (const name of ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"]) {
      const stores = storesFromEnv({ [name]: server.endpoint });
      expect((await stores.at(prefix).read("x")).bytes.toString()).toBe("hello");
      expect((await stores.object(`${prefix}x`).store.read("x")).bytes.toString()).toBe("hello");
    }

    const folder = await mkdtemp(join(tmpdir(), "capfleet-aws-"));
    const file = join(folder, "credentials");
    const keys = [`aws_access_key_id = ${server.accessKeyId}`, `aws_secret_access_key = ${server.secretAccessKey}`];
    await writeFile(file, ["[lab]", ...keys, "region = eu-west-1", ""].join("\n"));
    emptyAwsEnvironment();
    vi.stubEnv("AWS_SHARED_CREDENTIALS_FILE", file);
    const stores = new Stores([{ prefix, endpoint: server.endpoint, profile: "lab" }]);
    expect((await stores.at(prefix).read("x")).bytes.toString()).toBe("hello");
    await rm(folder, { recursive: true });
  });

  test("folder markers are no objects", async () => {
    const client = adminClient();
    for (const Key of ["marked/", "marked/sub/", "marked/sub/x"])
      await client.send(new PutObjectCommand({ Bucket: bucket, Key, Body: "", ContentLength: 0 }));
    const keys: string[] = [];
    for await (const { key } of new Stores([{ prefix, ...server }]).at(`${prefix}marked`).list()) keys.push(key);
    expect(keys).toEqual(["sub/x"]);
  });

  test("keys with empty and dotted parts, as only S3 can have them", async () => {
    const odd = new Stores([{ prefix, ...server }]).at(`${prefix}odd`);
    const keys = ["//x", "a//b", "a/./b", "a/../b"];
    for (const key of keys) await odd.put(key, key);
    const listed: string[] = [];
    for await (const { key } of odd.list()) listed.push(key);
    expect(listed).toEqual(["//x", "a/../b", "a/./b", "a//b"]);
    for (const key of keys) expect((await odd.read(key)).bytes.toString()).toBe(key);
  });

  test("an upload that failed leaves no parts behind", async () => {
    async function* body() {
      for (let i = 0; i < 3; i++) yield randomBytes(8 * 1024 * 1024);
      throw new Error("the body broke");
    }
    await expect(store.putStream("big", body())).rejects.toThrow("the body broke");
    const left = await adminClient().send(new ListMultipartUploadsCommand({ Bucket: bucket }));
    expect(left.Uploads ?? []).toEqual([]);
    expect(await store.stat("big")).toBeNull();
  });

  test("an object in several parts can be read by range and replaced by its ETag", async () => {
    const bytes = randomBytes(17_000_000);
    async function* body() {
      yield bytes;
    }
    await store.putStream("parts", body());
    const info = await store.stat("parts");
    expect(info?.etag).toMatch(/-3$/);
    const range = { start: 8_388_000, end: 8_389_000 };
    const streamed = await store.stream("parts", { range, ifMatch: info!.etag });
    const chunks: Uint8Array[] = [];
    for await (const chunk of streamed.body) chunks.push(chunk);
    expect(Buffer.concat(chunks).equals(bytes.subarray(range.start, range.end))).toBe(true);
    expect(await store.putIfMatch("parts", "new", info!.etag)).toMatchObject({ outcome: "written" });
  });

  test("the probe finds conditional writes, and leaves nothing", async () => {
    const probed = new Stores([{ prefix, ...server }]).at(`${prefix}probed`);
    expect(await probeConditionalWrites(probed)).toBe(true);
    for await (const { key } of probed.list()) expect(key).toBe("nothing");
  });

  function emptyAwsEnvironment(): void {
    vi.unstubAllEnvs();
    for (const name of Object.keys(process.env)) if (name.startsWith("AWS_")) vi.stubEnv(name, undefined);
    vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
    vi.stubEnv("AWS_CONFIG_FILE", "/nonexistent");
    vi.stubEnv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
  }
});

function operations(store: Store): (() => Promise<unknown>)[] {
  async function* body() {
    yield Buffer.from("x");
  }
  return [
    () => store.stat("x"),
    () => store.read("x"),
    () => store.stream("x", { range: { start: 1 } }),
    () => store.put("x", "x"),
    () => store.putIfAbsent("y", "x"),
    () => store.putIfMatch("x", "x", "etag"),
    () => store.putStream("x", body()),
    () => store.delete("x"),
    async () => {
      for await (const _ of store.list());
    },
  ];
}

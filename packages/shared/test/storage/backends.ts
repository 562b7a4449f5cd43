/** The stores that the suite runs against: a folder, and the real S3 server that the global setup provides. */
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListObjectsV2Command,
  S3Client,
} from "@aws-sdk/client-s3";
import { inject } from "vitest";
import { type Store, Stores } from "../../src/storage/index.ts";

export interface Backend {
  name: string;
  isMissing: boolean;
  /** An empty prefix of its own, and the value of CAPFLEET_STORES with which another process reaches it. */
  open(): Promise<{ store: Store; config: string }>;
  close(): Promise<void>;
}

export function backends(): Backend[] {
  return [files(), s3()];
}

function files(): Backend {
  const folders: string[] = [];
  const stores = new Stores();
  return {
    name: "files",
    isMissing: false,
    async open() {
      const folder = await mkdtemp(join(tmpdir(), "capfleet-store-"));
      folders.push(folder);
      return { store: stores.at(join(folder, "root")), config: "" };
    },
    async close() {
      for (const folder of folders) await rm(folder, { recursive: true });
    },
  };
}

function s3(): Backend {
  const server = inject("s3");
  if ("skipped" in server) return { name: "S3", isMissing: true, open: noServer, close: async () => {} };
  const bucket = `capfleet-test-${randomUUID()}`;
  const config = [{ prefix: `s3://${bucket}/`, ...server }];
  const stores = new Stores(config);
  let created: Promise<void> | undefined;
  return {
    name: "S3",
    isMissing: false,
    async open() {
      created ??= createBucket(bucket);
      await created;
      return { store: stores.at(`s3://${bucket}/${randomUUID()}`), config: JSON.stringify(config) };
    },
    async close() {
      stores.close();
      if (created !== undefined) await removeBucket(bucket);
    },
  };
}

/** A client for what a Store doesn't do: buckets, policies, uploads that were left behind. */
export function adminClient(): S3Client {
  const server = inject("s3");
  if ("skipped" in server) return noServer();
  const { endpoint, ...credentials } = server;
  return new S3Client({ endpoint, credentials, region: "us-east-1", forcePathStyle: true });
}

export async function createBucket(bucket: string): Promise<void> {
  const client = adminClient();
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  client.destroy();
}

export async function removeBucket(Bucket: string): Promise<void> {
  const client = adminClient();
  for (;;) {
    const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket }));
    if (Contents.length === 0) break;
    await Promise.all(Contents.map(({ Key }) => client.send(new DeleteObjectCommand({ Bucket, Key }))));
  }
  await client.send(new DeleteBucketCommand({ Bucket }));
  client.destroy();
}

function noServer(): never {
  throw new Error("there is no S3 server: this test should have been skipped");
}

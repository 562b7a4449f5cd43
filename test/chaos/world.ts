/**
 * What the faults strike: a real Redis, a real S3 server behind a proxy that makes trouble, `capfleet serve` and two workers,
 * each kept running, with a network and a disk of its own where the machine allows it.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { connectRedis } from "@capfleet/shared/queues";
import { type Stores, storesFromEnv } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { type FlakyProxy, flakyProxy } from "../support/flaky-proxy.ts";
import { CAPFLEET, Sandbox, type TestRedis, WORKER } from "../support/processes.ts";
import { type RunningS3, startS3 } from "../support/s3/ceph.ts";
import { KeptProcess } from "./kept-process.ts";
import { Namespaces } from "./namespaces.ts";
import { KIND_NAMES, type KindName, type ProcessName, WORKERS } from "./plan.ts";
import { SmallDisk } from "./small-disk.ts";

/** Room for the images of the shards in work, many times over. */
const DISK_MB = 8;
/** A request is given up after as long; the default of 20 s would only make the run longer. */
const STORE_TIMEOUT_MS = 5_000;
/** Node keeps compiled scripts in TMPDIR, unless it is told otherwise. */
const COMPILE_CACHE = join(tmpdir(), "node-compile-cache");
const MARK = "CAPFLEET_CHAOS";

type WorkerName = (typeof WORKERS)[number];

export class World {
  readonly sandbox: Sandbox;
  /** Kinds of faults that this machine can't do, and why. */
  readonly leftOut: Partial<Record<KindName, string>> = {};
  readonly processes = new Map<ProcessName, KeptProcess>();
  readonly disks = new Map<WorkerName, SmallDisk>();
  namespaces: Namespaces | null = null;
  proxy: FlakyProxy | null = null;
  redis!: TestRedis;
  /** The stores as this process sees them: past the proxy. */
  stores!: Stores;
  /** What inputs, outputs and the state root begin with: a bucket, or a folder where there is no S3 server. */
  root!: string;
  /** This process's environment for `submit`. */
  env!: NodeJS.ProcessEnv;
  readonly #id = randomUUID();
  #theirs: NodeJS.ProcessEnv = {};

  private constructor(sandbox: Sandbox) {
    this.sandbox = sandbox;
  }

  static async create(): Promise<World> {
    const world = new World(await Sandbox.create());
    try {
      await world.#build();
    } catch (thrown) {
      await world.remove();
      throw thrown;
    }
    return world;
  }

  async #build(): Promise<void> {
    const { sandbox } = this;
    await this.#tryTo(["worker-partition", "producer-partition"], async () => {
      const namespaces = await Namespaces.create(["producer", ...WORKERS]);
      this.namespaces = namespaces;
      sandbox.atEnd(() => namespaces.remove());
    });
    await this.#tryTo(["worker-disk-full"], async () => {
      for (const worker of WORKERS) {
        const disk = await SmallDisk.mount(sandbox.path(`${worker}.tmp`), DISK_MB);
        this.disks.set(worker, disk);
        sandbox.atEnd(() => disk.unmount());
      }
    });
    const host = this.namespaces?.address ?? "127.0.0.1";
    // Redis takes no one from elsewhere without a password, unless it is told to.
    this.redis = await sandbox.redis(randomUUID(), "--bind", "127.0.0.1", ...(this.namespaces ? [host] : []));
    const s3 = await startS3();
    if ("skipped" in s3) {
      for (const kind of KIND_NAMES) if (kind.startsWith("store-")) this.leftOut[kind] = s3.skipped;
      this.root = `file://${sandbox.path("store")}/`;
    } else {
      sandbox.atEnd(() => s3.stop());
      await this.#putProxyBefore(s3, host);
    }
    const shared = {
      CAPFLEET_STATE: `${this.root}state/`,
      CAPFLEET_GRACE_SECONDS: "5",
      CAPFLEET_LOG: "warn",
      [MARK]: this.#id,
    };
    this.env = sandbox.env({ ...shared, ...this.#storesAt(s3, null) });
    this.#theirs = sandbox.env({
      ...shared,
      ...this.#storesAt(s3, this.proxy),
      CAPFLEET_REDIS_URL: this.redis.url.replace("127.0.0.1", host),
    });
    this.stores = storesFromEnv(this.env);
    sandbox.atEnd(async () => this.stores.close());
    await mkdir(sandbox.path("logs"));
  }

  async #putProxyBefore(s3: RunningS3, host: string): Promise<void> {
    const proxy = await flakyProxy(s3.endpoint, host);
    this.proxy = proxy;
    this.sandbox.atEnd(() => proxy.close());
    const bucket = `chaos-${process.pid}-${Date.now()}`;
    this.root = `s3://${bucket}/`;
    const { endpoint, accessKeyId, secretAccessKey } = s3;
    const credentials = { accessKeyId, secretAccessKey };
    const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, credentials });
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
    client.destroy();
  }

  #storesAt(s3: Awaited<ReturnType<typeof startS3>>, proxy: FlakyProxy | null): Record<string, string> {
    if ("skipped" in s3) return {};
    const { accessKeyId, secretAccessKey } = s3;
    const endpoint = proxy?.endpoint ?? s3.endpoint;
    const store = { prefix: this.root, region: "us-east-1", accessKeyId, secretAccessKey, endpoint };
    return { CAPFLEET_STORES: JSON.stringify([{ ...store, timeoutMs: STORE_TIMEOUT_MS }]) };
  }

  async #tryTo(kinds: KindName[], make: () => Promise<void>): Promise<void> {
    try {
      await make();
    } catch (thrown) {
      const why = (thrown as Error).message.trim().split("\n").at(-1)!;
      for (const kind of kinds) this.leftOut[kind] = why;
    }
  }

  /** The producer and the workers. */
  start(): void {
    const worker = [process.execPath, WORKER, "--models", "demo-caption", "--threads", "1"];
    this.#keep("producer", [process.execPath, CAPFLEET, "serve"], {});
    for (const name of WORKERS) {
      const disk = this.disks.get(name);
      this.#keep(name, worker, disk ? { TMPDIR: disk.folder, NODE_COMPILE_CACHE: COMPILE_CACHE } : {});
    }
  }

  #keep(name: ProcessName, command: string[], more: Record<string, string>): void {
    const whole = [...(this.namespaces?.enter(name) ?? []), ...command];
    const kept = new KeptProcess(name, whole, { ...this.#theirs, ...more }, this.sandbox.path("logs"));
    this.processes.set(name, kept);
    this.sandbox.atEnd(() => kept.kill());
  }

  /** Runs something on Redis, on a connection of its own. */
  async onRedis<T>(run: (redis: Redis) => Promise<T>): Promise<T> {
    const redis = connectRedis(this.redis.url, "patient");
    try {
      return await run(redis);
    } finally {
      redis.disconnect();
    }
  }

  /** Processes of this world that run, whoever their parent is; by what they were started as. */
  async running(): Promise<string[]> {
    const found: string[] = [];
    for (const pid of await readdir("/proc").catch(() => [])) {
      if (!/^\d+$/.test(pid)) continue;
      const environment = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
      if (!environment.includes(`${MARK}=${this.#id}`)) continue;
      const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      found.push(`${pid} ${line.replaceAll("\0", " ").trim()}`);
    }
    return found;
  }

  remove(): Promise<void> {
    return this.sandbox.cleanUp();
  }
}

/** What the benchmarks run: the same processes that a cluster runs, on this machine, and a look at their memory. */
import { readFileSync } from "node:fs";
import { connectRedis } from "@capfleet/shared/queues";
import type { Redis } from "ioredis";
import { capfleet, type Running, Sandbox, type TestRedis } from "../support/processes.ts";

export const say = (line: string) => process.stderr.write(`${line}\n`);
export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export class BenchFleet implements AsyncDisposable {
  readonly sandbox: Sandbox;
  readonly env: NodeJS.ProcessEnv;
  readonly redis: Redis;

  private constructor(sandbox: Sandbox, server: TestRedis) {
    this.sandbox = sandbox;
    this.env = sandbox.env({ CAPFLEET_REDIS_URL: server.url });
    this.redis = connectRedis(server.url, "patient");
  }

  static async start(): Promise<BenchFleet> {
    const sandbox = await Sandbox.create();
    return new BenchFleet(sandbox, await sandbox.redis());
  }

  producer(): Running {
    return this.sandbox.producer(this.env);
  }

  submit(input: string, out: string, ...options: string[]): Promise<string> {
    return this.submitTask("caption", [input, "--model", "demo-caption", ...options], out);
  }

  /** `args`: the input, and options. Gives the job's id. */
  async submitTask(task: string, given: readonly string[], out: string): Promise<string> {
    const args = ["submit", task, ...given, "--out", out];
    const { code, stdout, stderr } = await capfleet(this.env, ...args);
    if (code !== 0) throw new Error(stderr);
    return stdout.trim();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.redis.disconnect();
    await this.sandbox.cleanUp();
  }
}

/** Resident memory of a process, in MB. */
export function residentMb(pid: number): number {
  const kb = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1];
  return Number(kb) / 1024;
}

/** The most memory that a process has had, in MB; 0 for one that has ended. */
export function peakMb(pid: number): number {
  try {
    return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

/** Slope of the least-squares line. */
export function slope(points: readonly { x: number; y: number }[]): number {
  const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const x = mean(points.map((point) => point.x));
  const y = mean(points.map((point) => point.y));
  const over = points.reduce((sum, point) => sum + (point.x - x) * (point.y - y), 0);
  return over / points.reduce((sum, point) => sum + (point.x - x) ** 2, 0);
}

/** Real processes for end-to-end tests: a Redis, producers, workers, and the command line. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { connectRedis } from "@capfleet/shared/queues";
import { findServer } from "../../packages/producer/src/local/redis.ts";

const path = (relative: string) => fileURLToPath(new URL(`../../${relative}`, import.meta.url));
export const DEMO = path("test/demo/");
const CAPFLEET = path("packages/producer/bin/capfleet.mjs");
const WORKER = path("packages/worker/bin/capfleet-worker.mjs");

/** Waits for a condition, not for a time; says what it waited for. */
export async function until<T>(what: string, condition: () => Promise<T> | T, seconds = 60): Promise<NonNullable<T>> {
  const deadline = performance.now() + seconds * 1_000;
  for (;;) {
    const value = await condition();
    if (value) return value as NonNullable<T>;
    if (performance.now() > deadline) throw new Error(`waited ${seconds} s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A folder that goes with the test; `cleanUp` ends everything that was started with it. */
export class Sandbox {
  readonly folder: string;
  readonly #ends: (() => Promise<unknown>)[] = [];

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async create(): Promise<Sandbox> {
    return new Sandbox(await mkdtemp(join(tmpdir(), "capfleet-test-")));
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** The environment of every process of this test. */
  env(more: Record<string, string> = {}): NodeJS.ProcessEnv {
    const { CAPFLEET_REDIS_URL: _, ...rest } = process.env;
    return { ...rest, CAPFLEET_STATE: this.path("state"), CAPFLEET_LOG: "", CAPFLEET_PORT: "0", ...more };
  }

  atEnd(end: () => Promise<unknown>): void {
    this.#ends.unshift(end);
  }

  async cleanUp(): Promise<void> {
    for (const end of this.#ends.splice(0)) await end();
    await rm(this.folder, { recursive: true, force: true });
  }

  async redis(password: string | null = null): Promise<TestRedis> {
    const redis = new TestRedis(await freePort(), password);
    this.atEnd(() => redis.kill());
    await redis.start();
    return redis;
  }

  producer(env: NodeJS.ProcessEnv): Running {
    return this.#start("producer", [CAPFLEET, "serve"], env);
  }

  /** One that takes no requests. */
  producerWithoutApi(env: NodeJS.ProcessEnv): Running {
    return this.#start("producer", [path("test/support/producer-process.ts")], env);
  }

  worker(env: NodeJS.ProcessEnv, ...args: string[]): Running {
    return this.#start("worker", [WORKER, "--models", "demo-caption", "--threads", "1", ...args], env);
  }

  /** The command line in the background. */
  capfleet(env: NodeJS.ProcessEnv, ...args: string[]): Running {
    return this.#start("capfleet", [CAPFLEET, ...args], env);
  }

  #start(name: string, args: string[], env: NodeJS.ProcessEnv): Running {
    const running = new Running(name, args, env);
    this.atEnd(() => running.kill("SIGKILL"));
    return running;
  }
}

export class Running {
  readonly child: ChildProcess;
  stdout = "";
  stderr = "";
  readonly #ended: Promise<number>;

  constructor(name: string, args: string[], env: NodeJS.ProcessEnv) {
    this.child = spawn(process.execPath, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    this.child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
    });
    this.child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
      if (process.env.CAPFLEET_TEST_VERBOSE) process.stderr.write(`[${name}] ${text}`);
    });
    this.#ended = once(this.child, "close").then(([code, signal]) => code ?? (signal as unknown as number));
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** Its exit code, or the name of the signal that ended it. */
  ended(): Promise<number> {
    return this.#ended;
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.child.kill(signal);
    await this.#ended;
  }
}

/** A real redis-server that keeps nothing: killed and started again, it is empty. */
export class TestRedis {
  readonly port: number;
  readonly #password: string | null;
  #server: ChildProcess | null = null;

  constructor(port: number, password: string | null) {
    this.port = port;
    this.#password = password;
  }

  get url(): string {
    return `redis://${this.#password === null ? "" : `:${this.#password}@`}127.0.0.1:${this.port}`;
  }

  async start(...settings: string[]): Promise<void> {
    const base = ["--bind", "127.0.0.1", "--port", String(this.port), "--save", "", "--maxmemory-policy", "noeviction"];
    const auth = this.#password === null ? [] : ["--requirepass", this.#password];
    this.#server = spawn(await findServer(), [...base, ...auth, ...settings], { stdio: "ignore" });
    await until("redis", async () => {
      const redis = connectRedis(this.url, "hasty");
      return redis
        .ping()
        .then(
          () => true,
          () => false,
        )
        .finally(() => redis.disconnect());
    });
  }

  async kill(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (!server || server.exitCode !== null || server.signalCode !== null) return;
    const ended = once(server, "exit");
    server.kill("SIGKILL");
    await ended;
  }
}

/** Those that start processes, last, or are run side by side. */
const PROCESSES = new Set(["run", "resume", "retry", "serve", "infer"]);

/** Runs the command line to its end: in the test's own process (see command.ts) where that shows the same. */
export async function capfleet(env: NodeJS.ProcessEnv, ...args: string[]) {
  if (PROCESSES.has(args[0]!)) return capfleetProcess(env, ...args);
  const { command } = await import("./command.ts");
  return command(env, ...args);
}

/** Runs the command line to its end, as a process of its own. */
export async function capfleetProcess(env: NodeJS.ProcessEnv, ...args: string[]) {
  const running = new Running("capfleet", [CAPFLEET, ...args], env);
  const code = await running.ended();
  return { code, stdout: running.stdout, stderr: running.stderr };
}

export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

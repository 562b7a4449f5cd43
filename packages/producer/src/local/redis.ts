/**
 * A Redis for one machine: the one that CAPFLEET_REDIS_URL names, or a server of our own that lives and dies with this
 * process. It keeps nothing on disk: the truth is in object storage.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { CapfleetError } from "@capfleet/shared/contract";
import { checkRedis, connectRedis, redisPrefix } from "@capfleet/shared/queues";

export interface LocalRedis {
  url: string;
  stop(): Promise<void>;
}

const START_MS = 10_000;
/**
 * The server's parent: it ends the server when our end of its standard input closes, which the kernel does even where
 * this process is killed.
 */
const GUARD = `exec 3<&0; "$0" "$1" >/dev/null 2>&1 3<&- & server=$!; (read -r _ <&3; kill "$server") 2>/dev/null & wait "$server"`;

/** Whether there will be a Redis, before anything is created for it. Throws as `openRedis` does. */
export async function expectRedis(given: string | null): Promise<void> {
  if (given !== null) await checkRedis(given);
  else await findServer();
}

/** Throws REDIS_MISSING, REDIS_UNREACHABLE or REDIS_UNSUITABLE. */
export async function openRedis(given: string | null): Promise<LocalRedis> {
  if (given !== null) {
    await checkRedis(given);
    return { url: given, stop: () => removeOurKeys(given) };
  }
  return startRedis(await findServer());
}

/** The server binary to start. Throws REDIS_MISSING. */
export async function findServer(): Promise<string> {
  for (const name of ["redis-server", "valkey-server"]) {
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      if (folder !== "" && isExecutable(join(folder, name))) return join(folder, name);
    }
  }
  try {
    const { RedisBinary } = await import("redis-memory-server");
    return await RedisBinary.getPath();
  } catch (cause) {
    const why = (cause as Error).message.split("\n")[0];
    const message = `no redis-server or valkey-server on PATH, and redis-memory-server could not provide one: ${why}`;
    throw new CapfleetError("REDIS_MISSING", message, { cause });
  }
}

async function startRedis(binary: string): Promise<LocalRedis> {
  const folder = await mkdtemp(join(tmpdir(), "capfleet-redis-"));
  const port = await freePort();
  const password = randomUUID();
  const url = `redis://:${password}@127.0.0.1:${port}`;
  const settings = [
    "bind 127.0.0.1",
    `port ${port}`,
    `requirepass ${password}`,
    'save ""',
    "appendonly no",
    "maxmemory-policy noeviction",
    `dir ${folder}`,
    `pidfile ${join(folder, "redis.pid")}`,
    "loglevel warning",
  ];
  const file = join(folder, "redis.conf");
  await writeFile(file, `${settings.join("\n")}\n`, { mode: 0o600 });

  let stopping = false;
  let guard: ChildProcess;
  const start = () => {
    // Its own process group: Ctrl-C is for this process, which still needs its Redis to stop in good order.
    guard = spawn("/bin/sh", ["-c", GUARD, binary, file], { stdio: ["pipe", "ignore", "ignore"], detached: true });
    const mine = guard;
    mine.stdin!.on("error", () => {});
    mine.once("exit", () => {
      mine.stdin!.end();
      // An empty Redis is as good as the old one.
      if (!stopping) setTimeout(start, 200).unref();
    });
  };
  start();
  const stop = async () => {
    stopping = true;
    const ended = guard.exitCode === null ? new Promise((resolve) => guard.once("exit", resolve)) : null;
    guard.stdin!.end();
    await ended;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await answering(url);
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  return { url, stop };
}

/** A server that others use as well keeps nothing of ours. */
async function removeOurKeys(url: string): Promise<void> {
  const redis = connectRedis(url, "hasty");
  try {
    for await (const found of redis.scanStream({ match: `${redisPrefix()}:*`, count: 1_000 })) {
      if (found.length > 0) await redis.del(...(found as string[]));
    }
  } catch {
    // It is gone, or it will forget them: the progress and the workers expire, the queue is empty.
  } finally {
    redis.disconnect();
  }
}

async function answering(url: string): Promise<void> {
  const deadline = performance.now() + START_MS;
  for (;;) {
    try {
      await checkRedis(url);
      return;
    } catch (thrown) {
      if (performance.now() > deadline) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Connections to Redis, and whether that Redis will do. */
import { Redis } from "ioredis";
import { CapfleetError } from "../contract/errors.ts";

const MIN_VERSION = [6, 2] as const;

/**
 * `patient`: commands wait for Redis to come back (workers, the reconciler; BullMQ demands it). `hasty`: they fail at
 * once when it is away, so that a command line answers. `steady`: they fail at once, and the connection comes back by
 * itself (the API).
 */
export function connectRedis(url: string, manner: "patient" | "hasty" | "steady"): Redis {
  const redis = new Redis(url, {
    maxRetriesPerRequest: manner === "patient" ? null : 1,
    enableOfflineQueue: manner !== "steady",
    connectTimeout: 5_000,
    retryStrategy: (times) => (manner === "hasty" && times > 2 ? null : Math.min(50 * 2 ** times, 1_000)),
  });
  // Without a listener ioredis prints each failed attempt; whoever issued a command gets its error anyway.
  redis.on("error", () => {});
  return redis;
}

/** What a command gives. Throws REDIS_REFUSED where Redis answers with an error, REDIS_UNREACHABLE where it does not answer. */
export async function fromRedis<T>(command: Promise<T>): Promise<T> {
  return command.catch((cause: Error & { previousErrors?: Error[] }) => {
    // A transaction is refused as a whole, for the first command that was.
    const { name, message } = cause.previousErrors?.[0] ?? cause;
    if (name === "ReplyError") throw new CapfleetError("REDIS_REFUSED", `Redis says: ${message}`, { cause });
    throw new CapfleetError("REDIS_UNREACHABLE", "the fleet's Redis does not answer", { cause });
  });
}

/** A URL as it may be shown: without its password. */
export function redisAddress(url: string): string {
  const { protocol, hostname, port, pathname } = new URL(url);
  return `${protocol}//${hostname}:${port || 6379}${pathname}`;
}

/**
 * Throws REDIS_UNREACHABLE within a few seconds, or REDIS_UNSUITABLE for a server that is too old or may evict keys.
 * Services that don't tell their policy are taken at their word (`policy` is then null).
 */
export async function checkRedis(url: string): Promise<{ version: string; policy: string | null }> {
  const redis = connectRedis(url, "hasty");
  let refused: NodeJS.ErrnoException | null = null;
  redis.on("error", (error: NodeJS.ErrnoException) => {
    refused = error;
  });
  try {
    const info = await redis.info().catch((cause: Error) => {
      // Why the attempts failed, such as a certificate that is not trusted.
      const why = cause.message.includes("max retries")
        ? refused?.message || refused?.code || "no connection"
        : cause.message;
      throw new CapfleetError("REDIS_UNREACHABLE", `Redis at ${redisAddress(url)} does not answer: ${why}`, { cause });
    });
    const version = /valkey_version:(\S+)/.exec(info)?.[1] ?? /redis_version:(\S+)/.exec(info)?.[1] ?? "0.0";
    const [major = 0, minor = 0] = version.split(".").map(Number);
    if (major < MIN_VERSION[0] || (major === MIN_VERSION[0] && minor < MIN_VERSION[1])) {
      throw new CapfleetError("REDIS_UNSUITABLE", `Redis at ${redisAddress(url)} is version ${version}; 6.2 is needed`);
    }
    // Not CONFIG GET: users that may do what a fleet needs may not, and managed services hide it.
    const policy = /maxmemory_policy:(\S+)/.exec(info)?.[1] ?? null;
    if (policy !== null && policy !== "noeviction") {
      const found = `Redis at ${redisAddress(url)} has maxmemory-policy ${policy}; noeviction is needed`;
      throw new CapfleetError("REDIS_UNSUITABLE", found);
    }
    return { version, policy };
  } finally {
    redis.disconnect();
  }
}

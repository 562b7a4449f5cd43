/** Which workers are alive, what they run and how far they are: a key per worker that expires when it stops beating. */
import type { Redis } from "ioredis";
import * as z from "zod";
import { engineRefSchema } from "../contract/job.ts";
import { fromRedis } from "./connection.ts";
import { keys } from "./names.ts";

export const HEARTBEAT_MS = 1_000;
const ALIVE_MS = 12_000;

export const presenceSchema = z.object({
  id: z.string(),
  host: z.string(),
  pid: z.number(),
  version: z.string(),
  engines: z.array(engineRefSchema),
  /** Shards that it works on at once. */
  slots: z.number().int(),
  /** What an hour of it costs; null: it has no price. */
  pricePerHour: z.number().nullable().default(null),
  /** Rows labelled but not committed yet. */
  inFlight: z.array(z.object({ job: z.string(), shard: z.number(), rows: z.number(), failed: z.number() })),
});
export type Presence = z.infer<typeof presenceSchema>;

/** Throws REDIS_REFUSED and REDIS_UNREACHABLE. */
export async function beat(redis: Redis, presence: Presence): Promise<void> {
  const told = redis
    .multi()
    .set(keys.worker(presence.id), JSON.stringify(presence), "PX", ALIVE_MS)
    .sadd(keys.workers(), presence.id);
  await fromRedis(told.exec());
}

export async function leave(redis: Redis, id: string): Promise<void> {
  await redis.multi().del(keys.worker(id)).srem(keys.workers(), id).exec();
}

/** Every worker that has beaten lately. */
export async function liveWorkers(redis: Redis): Promise<Presence[]> {
  const ids = await redis.smembers(keys.workers());
  if (ids.length === 0) return [];
  const values = await redis.mget(ids.map(keys.worker));
  const gone = ids.filter((_, i) => values[i] === null);
  if (gone.length > 0) await redis.srem(keys.workers(), ...gone);
  return values.flatMap((value) => {
    const parsed = value === null ? null : presenceSchema.safeParse(JSON.parse(value));
    return parsed?.success ? [parsed.data] : [];
  });
}

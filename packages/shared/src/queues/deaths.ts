/**
 * How many workers a shard has taken down. A worker counts its shard before it begins, and takes the count back when the
 * shard ends in any other way than with the process. Two shards in hand at one death both count: which of them it was,
 * nobody knows. An emptied Redis forgets, and the count begins anew. All throw REDIS_REFUSED and REDIS_UNREACHABLE.
 */
import type { Redis } from "ioredis";
import { fromRedis } from "./connection.ts";
import { keys } from "./names.ts";

const KEEP_SECONDS = 24 * 3600;
/** KEYS: the job's hash. ARGV: shard. Never below 0: Redis may have been emptied since it was counted. */
const TAKE_BACK = `
if redis.call("HINCRBY", KEYS[1], ARGV[1], -1) <= 0 then redis.call("HDEL", KEYS[1], ARGV[1]) end`;

/** To be called before a shard is begun. Returns the deaths that it has cost so far. */
export async function beginShard(redis: Redis, job: string, shard: number): Promise<number> {
  const key = keys.deaths(job);
  const replies = await fromRedis(redis.multi().hincrby(key, String(shard), 1).expire(key, KEEP_SECONDS).exec());
  const [error, count] = replies![0]!;
  if (error) throw error;
  return (count as number) - 1;
}

/** The shard goes back, and its worker lives. */
export async function giveBackShard(redis: Redis, job: string, shard: number): Promise<void> {
  await fromRedis(redis.eval(TAKE_BACK, 1, keys.deaths(job), shard));
}

/** Nothing is left to do of the shard. */
export async function endShard(redis: Redis, job: string, shard: number): Promise<void> {
  await fromRedis(redis.hdel(keys.deaths(job), String(shard)));
}

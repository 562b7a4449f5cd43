/** Names in Redis. BullMQ's own keys stand below the same prefix. */
import * as z from "zod";

/** CAPFLEET_REDIS_PREFIX keeps two fleets apart that share a Redis; `capfleet run` takes one of its own. */
export const redisPrefix = () => process.env.CAPFLEET_REDIS_PREFIX || "capfleet";

/** What the engines that a job needs are called together, whatever their order. */
export const engineSet = (engines: readonly { digest: string }[]): string =>
  [...new Set(engines.map(({ digest }) => digest))].sort().join("+");

/** The sets that a worker with these engines can serve: each alone, and each two. */
export function servedSets(engines: readonly { digest: string }[]): string[] {
  return [...new Set(engines.flatMap((one) => engines.map((other) => engineSet([one, other]))))];
}

/** The queue of the shards that need exactly these engines; see `engineSet`. */
export const workQueue = (engines: string) => `work.${engines}`;

/** The queue of interactive requests for exactly these engines. */
export const inferQueue = (engines: string) => `infer.${engines}`;

/** BullMQ keeps the last 10,000 events of each queue, a megabyte, where it is not told otherwise; nobody here reads any. */
export const FEW_EVENTS = { events: { maxLen: 100 } };

/** A shard's id in its queue; derived, so that adding the same shard twice is one job. BullMQ forbids `:`. */
export const shardJobId = (job: string, shard: number) => `${job}.${shard}`;
export const parseShardJobId = (id: string): { job: string; shard: number } | null => {
  const dot = id.lastIndexOf(".");
  return dot < 0 ? null : { job: id.slice(0, dot), shard: Number(id.slice(dot + 1)) };
};

export const keys = {
  /** A set of worker ids; each has a key of its own that expires. */
  workers: () => `${redisPrefix()}:workers`,
  worker: (id: string) => `${redisPrefix()}:worker:${id}`,
  /** A list of what workers did with a job's shards; the reconciler empties it. A hint: lost entries cost a read. */
  reports: (job: string) => `${redisPrefix()}:reports:${job}`,
  /** A hash of a job's shards: how many workers each has taken down; see deaths.ts. */
  deaths: (job: string) => `${redisPrefix()}:deaths:${job}`,
  /** The reconciler's last word on a job, for `status`; expires. */
  progress: (job: string) => `${redisPrefix()}:progress:${job}`,
  /** An interactive request: a hash that stands as long as somebody waits for its answer. */
  inferRequest: (id: string) => `${redisPrefix()}:infer:request:${id}`,
  /** A sorted set of the interactive requests that are not answered, by the end of their time. */
  inferOpen: () => `${redisPrefix()}:infer:open`,
  /** A stream of answers to one asking process. */
  inferInbox: (asker: string) => `${redisPrefix()}:infer:inbox:${asker}`,
  /** The reconciler's last word on the fleet; expires. */
  figures: () => `${redisPrefix()}:figures`,
  /** A list of the fleet's figures, one every few seconds of the last hour. */
  history: () => `${redisPrefix()}:history`,
  lease: (name: string) => `${redisPrefix()}:lease:${name}`,
  /** A channel: something changed, look now. */
  wake: () => `${redisPrefix()}:wake`,
};

/** What BullMQ carries for a shard: where it is, never what is in it. */
export const workPayloadSchema = z.object({
  /** Raised when older workers must leave a shard alone. */
  v: z.literal(2),
  job: z.string(),
  shard: z.number().int(),
  out: z.string(),
  /** `JobState.retries`: above 0, a shard with results is done again as far as it failed. */
  retries: z.number().int(),
});
export type WorkPayload = z.infer<typeof workPayloadSchema>;

/** Answers to this process's interactive requests, off its stream in Redis; see queues/infer.ts. */
import { randomUUID } from "node:crypto";
import { type InferAnswer, inferAnswerSchema, keys } from "@capfleet/shared/queues";
import type { Redis, RedisOptions } from "ioredis";

/** Redis says something at least this often: a connection that is silent for much longer is dead. */
const BLOCK_MS = 5_000;
const SILENT_MS = 15_000;
const AGAIN_MS = 200;

export class Inbox {
  readonly asker = randomUUID();
  readonly #ears: Redis;
  readonly #waiting = new Map<string, (answer: InferAnswer) => void>();
  #listening = false;
  #closed = false;

  /** Takes a connection of its own, like `redis`, but one that comes back for as long as the inbox is open. */
  constructor(redis: Redis) {
    const own: RedisOptions = {
      lazyConnect: true,
      maxRetriesPerRequest: null,
      enableOfflineQueue: true,
      socketTimeout: SILENT_MS,
      retryStrategy: (times) => Math.min(50 * 2 ** times, 1_000),
    };
    this.#ears = redis.duplicate<RedisOptions>(own);
    this.#ears.on("error", () => {});
  }

  /** The answer to a request; call it before the request can have one, and `forget` where it is no longer awaited. */
  expect(id: string): Promise<InferAnswer> {
    if (!this.#listening) this.#listen();
    return new Promise((resolve) => this.#waiting.set(id, resolve));
  }

  forget(id: string): void {
    this.#waiting.delete(id);
  }

  /** Leaves nothing in Redis, where Redis is there. */
  async close(redis: Redis): Promise<void> {
    this.#closed = true;
    this.#ears.disconnect();
    await redis.del(keys.inferInbox(this.asker)).catch(() => {});
  }

  async #listen(): Promise<void> {
    this.#listening = true;
    while (!this.#closed) {
      try {
        await this.#take();
      } catch {
        // Redis is away or not ready. What was read and not deleted comes again, and nobody waits for it then.
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }

  async #take(): Promise<void> {
    const key = keys.inferInbox(this.asker);
    // From the beginning: what has been read is gone, and the clock of a Redis that took over may be behind.
    const found = await this.#ears.xread("BLOCK", BLOCK_MS, "STREAMS", key, "0");
    for (const [, entries] of found ?? []) {
      for (const [, [, id, , answer]] of entries) {
        this.#waiting.get(id!)?.(answerIn(answer!));
        this.#waiting.delete(id!);
      }
      await this.#ears.xdel(key, ...entries.map(([entry]) => entry));
    }
  }
}

/** One of another version's form must not keep the others from being read. */
function answerIn(text: string): InferAnswer {
  const parsed = inferAnswerSchema.safeParse(JSON.parse(text));
  if (parsed.success) return parsed.data;
  return { error: { code: "INTERNAL", message: "a worker of another version has answered in another form" } };
}

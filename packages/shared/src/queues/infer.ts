/**
 * Interactive requests: one record, answered while somebody waits. What is asked, and an uploaded image's bytes, wait in a
 * hash of their own; BullMQ carries the request's id alone. A request stands as long as that hash does: it expires with the
 * request's time, the asker deletes it when it no longer waits, and an answer deletes it, so that of two workers which did
 * the same request one answers.
 *
 * Uploads wait in Redis and not in the state root because they are there for seconds: written once, read once, gone by
 * themselves whoever dies, at no round trips to a bucket. What that may cost Redis is bounded: see `MAX_OPEN_BYTES`.
 *
 * Answers go to a stream per asking process, which reads it with one blocking connection. An entry stays there until its
 * reader has it and deletes it, so that a connection that breaks off loses none.
 */
import type { Redis } from "ioredis";
import * as z from "zod";
import { engineRefSchema } from "../contract/job.ts";
import { recordSchema, resultRowSchema } from "../contract/record.ts";
import { jobTaskSpecSchema } from "../contract/task.ts";
import { keys } from "./names.ts";

/** The largest image that is sent along with a request. */
export const MAX_UPLOAD_BYTES = 10 * 1024 * 1024;
/** What of a fleet's requests may wait for an answer: their number, and their bytes in Redis. */
export const MAX_OPEN = 256;
export const MAX_OPEN_BYTES = 256 * 1024 * 1024;
/** How long an asker waits unless it says otherwise, and at most. */
export const INFER_TIMEOUT_MS = 30_000;
export const MAX_INFER_TIMEOUT_MS = 600_000;
/** How long an answer waits for a reader that was cut off. */
const INBOX_MS = 60_000;

export const inferRequestSchema = z.object({
  task: jobTaskSpecSchema,
  /** One per role of the task, as in a job. */
  engines: z.array(engineRefSchema).min(1).max(2),
  /** `image`: null where its bytes are sent along, or the task looks at none. With its `id` a seed draws what is sampled. */
  record: recordSchema.pick({ id: true, image: true, texts: true }),
});
export type InferRequest = z.infer<typeof inferRequestSchema>;

/** What BullMQ carries; the job's id is the request's. */
export const inferPayloadSchema = z.object({
  /** Raised when older workers must leave a request alone. */
  v: z.literal(1),
  /** Where the answer goes; see `keys.inferInbox`. */
  asker: z.string(),
});
export type InferPayload = z.infer<typeof inferPayloadSchema>;

/** The task's fields of a row, or what went wrong: any code of the registry. */
export const inferAnswerSchema = z.union([
  z.object({ row: resultRowSchema.omit({ id: true, image: true, member: true, kept: true, error: true }) }),
  z.object({ error: z.object({ code: z.string(), message: z.string() }) }),
]);
export type InferAnswer = z.infer<typeof inferAnswerSchema>;
export type InferRow = Extract<InferAnswer, { row: unknown }>["row"];

/** An open request's entry in the sorted set says how many bytes it has. */
const entryOf = (id: string, bytes: number) => `${bytes}:${id}`;

/** KEYS: open, request. ARGV: entry, bytes, time in ms, most requests, most bytes, request, image. 1: it stands. */
const ASK = `
local now = redis.call("TIME")
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", now)
local open = redis.call("ZRANGE", KEYS[1], 0, -1)
local bytes = tonumber(ARGV[2])
for _, entry in ipairs(open) do bytes = bytes + tonumber(string.match(entry, "^%d+")) end
if #open >= tonumber(ARGV[4]) or bytes > tonumber(ARGV[5]) then return 0 end
redis.call("ZADD", KEYS[1], now + ARGV[3], ARGV[1])
if redis.call("PTTL", KEYS[1]) < tonumber(ARGV[3]) then redis.call("PEXPIRE", KEYS[1], ARGV[3]) end
redis.call("HSET", KEYS[2], "entry", ARGV[1], "request", ARGV[6], "image", ARGV[7])
redis.call("PEXPIRE", KEYS[2], ARGV[3])
return 1`;

/** KEYS: open, request, inbox. ARGV: id, answer (none: the request is withdrawn), the inbox's time in ms. 1: it stood. */
const END = `
local entry = redis.call("HGET", KEYS[2], "entry")
if not entry then return 0 end
redis.call("DEL", KEYS[2])
redis.call("ZREM", KEYS[1], entry)
if ARGV[2] then
  redis.call("XADD", KEYS[3], "*", "id", ARGV[1], "answer", ARGV[2])
  redis.call("PEXPIRE", KEYS[3], ARGV[3])
end
return 1`;

/** `image`: an uploaded file. False where too many requests or bytes wait already. */
export async function openRequest(
  redis: Redis,
  id: string,
  request: InferRequest,
  image: Uint8Array | null,
  timeoutMs: number,
): Promise<boolean> {
  const text = JSON.stringify(request);
  const bytes = Buffer.byteLength(text) + (image?.length ?? 0);
  const file = image ? Buffer.from(image.buffer, image.byteOffset, image.length) : "";
  const limits = [timeoutMs, MAX_OPEN, MAX_OPEN_BYTES];
  const names = [keys.inferOpen(), keys.inferRequest(id)];
  return (await redis.eval(ASK, 2, ...names, entryOf(id, bytes), bytes, ...limits, text, file)) === 1;
}

/** A request that still stands, and what is left of its time; null where nobody waits any more. */
export async function readRequest(redis: Redis, id: string) {
  const key = keys.inferRequest(id);
  const [[text, image], leftMs] = await Promise.all([redis.hmgetBuffer(key, "request", "image"), redis.pttl(key)]);
  if (!text || !image || leftMs <= 0) return null;
  const request = inferRequestSchema.parse(JSON.parse(text.toString("utf8")));
  return { request, image: image.length > 0 ? image : null, leftMs };
}

/** False where nobody waits any more: another worker has answered, or the request was withdrawn. */
export async function answerRequest(redis: Redis, id: string, asker: string, answer: InferAnswer): Promise<boolean> {
  const names = [keys.inferOpen(), keys.inferRequest(id), keys.inferInbox(asker)];
  return (await redis.eval(END, 3, ...names, id, JSON.stringify(answer), INBOX_MS)) === 1;
}

export async function withdrawRequest(redis: Redis, id: string): Promise<void> {
  await redis.eval(END, 2, keys.inferOpen(), keys.inferRequest(id), id);
}

/** Asks the API. The key, where one is needed, stays in this tab: it goes with its session. */
import type { Job } from "./types.ts";

const KEY = "capfleet-key";
/** Told to the window when the API wants a key, or another one. */
export const KEY_NEEDED = "capfleet-key-needed";

export const storedKey = (): string | null => sessionStorage.getItem(KEY);
export function storeKey(key: string | null): void {
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}

export class ApiError extends Error {
  readonly code: string;
  readonly fix: string;

  constructor(code: string, message: string, fix: string) {
    super(message);
    this.code = code;
    this.fix = fix;
  }
}

interface Request {
  method?: "GET" | "POST" | "DELETE";
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | null;
}

/** Throws ApiError, or the signal's reason. */
async function send(path: string, { method = "GET", body, headers = {}, signal = null }: Request): Promise<Response> {
  const key = storedKey();
  const all = {
    ...headers,
    ...(key !== null && { authorization: `Bearer ${key}` }),
    ...(body !== undefined && { "content-type": "application/json" }),
  };
  const text = body === undefined ? null : JSON.stringify(body);
  const answer = await fetch(path, { method, headers: all, body: text, signal }).catch((thrown: unknown) => {
    if (signal?.aborted) throw thrown;
    throw new ApiError("UNREACHABLE", "The server does not answer.", "See that `capfleet serve` is running.");
  });
  if (answer.ok) return answer;
  const { error } = (await answer.json().catch(() => ({}))) as {
    error?: { code: string; message: string; fix: string };
  };
  if (answer.status === 401) window.dispatchEvent(new Event(KEY_NEEDED));
  const { code, message, fix } = error ?? { code: `HTTP_${answer.status}`, message: "The server refused.", fix: "" };
  throw new ApiError(code, message, fix);
}

/** The answer's JSON; null where it has none. */
export async function call<T>(path: string, request: Request = {}): Promise<T> {
  const answer = await send(path, request);
  return (answer.status === 204 ? null : await answer.json()) as T;
}

export const post = <T>(path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> =>
  call(path, { method: "POST", body, headers });

/** A file: a picture, or a job's rows. */
export async function file(path: string, signal: AbortSignal | null = null): Promise<Blob> {
  return (await send(path, { signal })).blob();
}

/** Tells each step of a job, until it has ended. Where the stream breaks off it is opened again. */
export async function follow(
  id: string,
  told: (job: Job) => void,
  lost: (error: unknown) => void,
  signal: AbortSignal,
) {
  for (let pause = 1_000; !signal.aborted; pause = Math.min(pause * 2, 15_000)) {
    try {
      const { body } = await send(`/v1/jobs/${id}/events`, { signal });
      for await (const { event, data } of eventsOf(body!)) {
        pause = 1_000;
        if (event !== "progress" && event !== "end") continue;
        told(JSON.parse(data) as Job);
        if (event === "end") return;
      }
    } catch (thrown) {
      if (signal.aborted) return;
      lost(thrown);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Server-sent events. EventSource can't send a key. */
async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<{ event: string; data: string }> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop()!;
    for (const block of blocks) {
      const fields = new Map(block.split("\n").map((line) => [line.split(":")[0]!, line.slice(line.indexOf(":") + 2)]));
      const data = fields.get("data");
      if (data !== undefined) yield { event: fields.get("event") ?? "message", data };
    }
  }
}

/** The body of a GET as chunks that are known to be whole. */
import type { Readable } from "node:stream";
import { CapfleetError } from "../contract/errors.ts";
import { s3Error } from "./s3-error.ts";

export interface BodyOptions {
  uri: string;
  /** Bytes that must come. */
  length: number;
  /** The longest wait for the next chunk. Only our own waiting counts: a slow reader is no stalled server. */
  stallMs: number;
  signal?: AbortSignal | undefined;
}

/** Throws STORE_UNAVAILABLE where the body stalls, breaks off or has another length; the signal's reason if it is aborted. */
export function bodyChunks(body: Readable, options: BodyOptions): AsyncGenerator<Uint8Array> {
  // An error before anybody reads would have no listener, which ends a process. Reading meets it all the same.
  body.on("error", () => {});
  return readChunks(body, options);
}

async function* readChunks(body: Readable, options: BodyOptions): AsyncGenerator<Uint8Array> {
  const { uri, length, stallMs, signal } = options;
  const chunks = body[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  let received = 0;
  try {
    for (;;) {
      const stalled = setTimeout(() => body.destroy(new Error(`no bytes for ${stallMs} ms`)), stallMs);
      const next = await chunks.next().finally(() => clearTimeout(stalled));
      if (next.done) break;
      received += next.value.byteLength;
      yield next.value;
    }
    if (received !== length)
      throw new CapfleetError("STORE_UNAVAILABLE", `${uri}: the body broke off after ${received} of ${length} bytes`);
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw s3Error(error, `${uri}, after ${received} of ${length} bytes`);
  } finally {
    body.destroy();
  }
}

/** A record's image, from wherever it is, into memory. */
import { CapfleetError } from "@capfleet/shared/contract";
import type { Stores } from "@capfleet/shared/storage";
import type { Budget } from "./budget.ts";

export interface Fetched {
  bytes: Buffer;
  /** Gives the bytes back to the budget; call it when they are decoded. */
  release(): void;
}

/**
 * Throws row errors (IMAGE_NOT_FOUND, IMAGE_EMPTY, IMAGE_TOO_LARGE, IMAGE_URI_INVALID) and shard errors (the store's
 * own: access, credentials, availability).
 */
export async function fetchImage(uri: string, stores: Stores, maxBytes: number, budget: Budget, signal: AbortSignal) {
  try {
    const { store, key } = stores.object(uri);
    const { body, size } = await store.stream(key, { signal });
    const release = size > maxBytes ? () => {} : await budget.acquire(size);
    try {
      return { bytes: await collect(body, uri, maxBytes), release } satisfies Fetched;
    } catch (thrown) {
      release();
      throw thrown;
    }
  } catch (thrown) {
    throw asRowError(thrown, uri);
  }
}

async function collect(body: AsyncIterable<Uint8Array>, uri: string, maxBytes: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) throw new CapfleetError("IMAGE_TOO_LARGE", `${uri} is larger than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  if (size === 0) throw new CapfleetError("IMAGE_EMPTY", `${uri} has no bytes`);
  return Buffer.concat(chunks);
}

function asRowError(thrown: unknown, uri: string): unknown {
  if (!(thrown instanceof CapfleetError)) return thrown;
  if (thrown.code === "OBJECT_NOT_FOUND") return new CapfleetError("IMAGE_NOT_FOUND", `${uri} does not exist`);
  if (thrown.code === "INVALID_URI") return new CapfleetError("IMAGE_URI_INVALID", thrown.message);
  return thrown;
}

/** A record's image, from wherever it is, into memory. */
import { CapfleetError } from "../contract/errors.ts";
import type { Stores } from "../storage/index.ts";
import type { Budget } from "./budget.ts";
import { type ImageSource, openImage } from "./image.ts";

export interface Fetched {
  bytes: Buffer;
  /** Gives the bytes back to the budget; call it when they are decoded. */
  release(): void;
}

/**
 * The image of a record that has one; waits for room in the budget, where there is one. Throws row errors (IMAGE_NOT_FOUND, IMAGE_EMPTY, IMAGE_TOO_LARGE,
 * IMAGE_URI_INVALID, IMAGE_CHANGED) and shard errors (the store's own: access, credentials, availability).
 */
export async function fetchImage(
  { image, member }: ImageSource,
  stores: Stores,
  maxBytes: number,
  budget?: Budget,
  signal?: AbortSignal,
): Promise<Fetched> {
  const uri = image!;
  const name = member ? `${member.name} in ${uri}` : uri;
  try {
    if (member && (member.size === 0 || member.size > maxBytes)) throw sizeError(member.size, name, maxBytes);
    const { body, size } = await openImage({ image, member }, stores, signal);
    const isTooLarge = size !== null && size > maxBytes;
    const release = isTooLarge || !budget ? () => {} : await budget.acquire(size ?? maxBytes);
    try {
      return { bytes: await collect(body, name, maxBytes), release };
    } catch (thrown) {
      release();
      throw thrown;
    }
  } catch (thrown) {
    throw asRowError(thrown, uri, member !== undefined);
  }
}

/** The image that came along with its record. Throws IMAGE_EMPTY, IMAGE_TOO_LARGE. */
export function uploadedImage(bytes: Buffer, maxBytes: number): Fetched {
  if (bytes.length === 0 || bytes.length > maxBytes) throw sizeError(bytes.length, "the image", maxBytes);
  return { bytes, release: () => {} };
}

async function collect(body: AsyncIterable<Uint8Array>, name: string, maxBytes: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) throw sizeError(size, name, maxBytes);
    chunks.push(chunk);
  }
  if (size === 0) throw sizeError(size, name, maxBytes);
  return Buffer.concat(chunks);
}

function sizeError(size: number, name: string, maxBytes: number): CapfleetError {
  if (size === 0) return new CapfleetError("IMAGE_EMPTY", `${name} has no bytes`);
  return new CapfleetError("IMAGE_TOO_LARGE", `${name} is larger than ${maxBytes} bytes`);
}

function asRowError(thrown: unknown, uri: string, isTar: boolean): unknown {
  if (!(thrown instanceof CapfleetError)) return thrown;
  if (thrown.code === "OBJECT_NOT_FOUND") return new CapfleetError("IMAGE_NOT_FOUND", `${uri} does not exist`);
  // Waiting would not bring the old tar back: its images fail, and the job goes on with the others.
  if (thrown.code === "SOURCE_CHANGED" && isTar)
    return new CapfleetError("IMAGE_CHANGED", `${uri} is no longer the tar that was planned`);
  if (thrown.code === "INVALID_URI") return new CapfleetError("IMAGE_URI_INVALID", thrown.message);
  return thrown;
}

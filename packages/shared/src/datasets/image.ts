/** The bytes of a record's image, from wherever they are. */
import type { InputRecord } from "../contract/record.ts";
import { isHttps, type Stores } from "../storage/index.ts";

/** Where an image is: an object, in a tar the bytes of one of its members, or on the web. */
export type ImageSource = Pick<InputRecord, "image" | "member">;

/**
 * Of a record that has an image. `size` is in bytes, null where only reading tells. The body holds a file or a connection
 * open until it has been iterated, to its end or to a `break`. Throws INVALID_URI, SOURCE_CHANGED for a tar that has been
 * replaced, the store's errors, and for one on the web row errors (see HttpsSource).
 */
export async function openImage(
  { image, member }: ImageSource,
  stores: Stores,
  signal?: AbortSignal,
): Promise<{ body: AsyncIterable<Uint8Array>; size: number | null }> {
  if (isHttps(image!)) return stores.https.open(image!, signal);
  const { store, key } = stores.object(image!);
  const part = member && { range: { start: member.offset, end: member.offset + member.size }, ifMatch: member.etag };
  const { body, size } = await store.stream(key, { ...part, ...(signal && { signal }) });
  return { body, size: member?.size ?? size };
}

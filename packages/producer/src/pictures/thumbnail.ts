/** A record's image made small, for people to look at. */
import { CapfleetError } from "@capfleet/shared/contract";
import { fetchImage, type ImageSource } from "@capfleet/shared/datasets";
import type { Stores } from "@capfleet/shared/storage";

/** What the producer, which does other things as well, spends on one picture; workers may take larger ones. */
const MAX_BYTES = 64 * 1024 * 1024;
const MAX_PIXELS = 2 ** 26;
const DECODE_SECONDS = 10;

/**
 * Of a record that has an image: a JPEG, upright, on white, that fits into a square of `side` pixels. Throws the row errors
 * of `fetchImage`, IMAGE_UNREADABLE, the stores' errors, and the signal's reason.
 */
export async function thumbnailOf(
  source: ImageSource,
  side: number,
  stores: Stores,
  signal?: AbortSignal,
): Promise<Buffer> {
  const { bytes } = await fetchImage(source, stores, MAX_BYTES, undefined, signal);
  // Only where there are pictures: it takes every command a tenth of a second to load.
  const { default: sharp } = await import("@capfleet/shared/libvips");
  const picture = sharp(bytes, { autoOrient: true, limitInputPixels: MAX_PIXELS }).timeout({ seconds: DECODE_SECONDS });
  const small = picture
    .flatten({ background: "#ffffff" })
    .resize(side, side, { fit: "inside", withoutEnlargement: true });
  return small
    .jpeg({ quality: 78 })
    .toBuffer()
    .catch((cause: unknown) => {
      throw new CapfleetError("IMAGE_UNREADABLE", `${source.image} can't be shown`, { cause });
    });
}

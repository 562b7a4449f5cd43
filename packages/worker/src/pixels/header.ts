import { CapfleetError } from "@capfleet/shared/contract";
import sharp from "@capfleet/shared/libvips";
import { together } from "./gate.ts";
import type { Size } from "./raster.ts";
import { unreadable } from "./unreadable.ts";

/** What decoding needs to know before any pixel is decoded. */
export interface Header {
  format: "jpeg" | "png" | "webp" | "gif" | "tiff" | "heif";
  /** Once upright: EXIF orientations 5 to 8 swap the stored width and height. */
  upright: Size;
  /** EXIF's, 1 to 8. */
  orientation: number;
  cmyk: boolean;
  /** Of a channel. */
  bits: 8 | 16;
}

/** libvips' colour spaces that have a known way to RGB: each one's depth, and its channels with and without alpha. */
const SUPPORTED: Record<string, { depth: string; channels: readonly number[] }> = {
  srgb: { depth: "uchar", channels: [3, 4] },
  "b-w": { depth: "uchar", channels: [1, 2] },
  cmyk: { depth: "uchar", channels: [4] },
  rgb16: { depth: "ushort", channels: [3, 4] },
  grey16: { depth: "ushort", channels: [1, 2] },
};

/** Reads an image's header. Errors: IMAGE_UNREADABLE, IMAGE_TOO_MANY_PIXELS. */
export async function readHeader(bytes: Uint8Array, maxPixels: number): Promise<Header> {
  const found = await together(() => sharp(bytes, { limitInputPixels: false }).metadata()).catch((thrown: unknown) => {
    throw unreadable(thrown, bytes);
  });
  if (found.width * found.height > maxPixels) {
    const size = `${found.width} × ${found.height} pixels`;
    throw new CapfleetError("IMAGE_TOO_MANY_PIXELS", `the image has ${size}; the limit is ${maxPixels}`);
  }
  // A libvips built with more codecs would also open HEIC, JPEG in HEIF and so on behind the same loader.
  if (found.format === "heif" && found.compression !== "av1") {
    throw unreadable(`HEIF with ${found.compression} inside is not AVIF`, bytes);
  }
  // Lab, floating point, 32-bit, more bands and the like, found in TIFF: most of them have no way to RGB in PIL either.
  const supported = SUPPORTED[found.space];
  if (supported?.depth !== found.depth || !supported.channels.includes(found.channels)) {
    const pixels = `${found.channels} channel(s) of ${found.space}, ${found.depth}`;
    throw unreadable(`${found.format.toUpperCase()} with ${pixels}`, bytes);
  }
  return {
    format: found.format as Header["format"],
    upright: { width: found.autoOrient.width, height: found.autoOrient.height },
    orientation: found.orientation ?? 1,
    cmyk: found.space === "cmyk",
    bits: found.depth === "ushort" ? 16 : 8,
  };
}

import { CapfleetError } from "@capfleet/shared/contract";
import { Budget } from "@capfleet/shared/datasets";
import sharp from "@capfleet/shared/libvips";
import type { Sharp, SharpOptions } from "sharp";
import { rgbFromCmyk } from "./cmyk.ts";
import { alone, together } from "./gate.ts";
import { type Header, readHeader } from "./header.ts";
import { type Raster, rasterOf, type Size } from "./raster.ts";
import { finish, firstPass, isReadWhole } from "./resample.ts";
import { unreadable } from "./unreadable.ts";

/** Where PIL refuses an image as a decompression bomb: twice its MAX_IMAGE_PIXELS. */
export const DEFAULT_MAX_PIXELS = 178_956_970;

/** Pictures of so many pixels, in all, are decoded at once, and any number of those that are not large. */
const LARGE_PIXELS = 2 ** 25;
const large = new Budget(DEFAULT_MAX_PIXELS);

export interface Limits {
  /**
   * Most pixels (width × height) that an image may have, by its header. It bounds memory: baseline JPEG and plain PNG
   * are decoded in strips, but progressive JPEG, interlaced PNG, WebP, GIF and AVIF as a whole, at 3 to 8 bytes a pixel.
   */
  maxPixels: number;
  /** What decoding may take, once it has begun. Between two steps of the decoder: one that hangs in a step is not ended. */
  maxSeconds: number;
}

/** Transparent pixels show this. See `decode`. */
const PAPER = "#ffffff";

/**
 * Decodes a JPEG, PNG, WebP, GIF, TIFF or AVIF file and resizes it to exactly `size`, without cropping and without
 * keeping the aspect ratio: what transformers' BlipImageProcessorPil does up to, not including, rescaling.
 *
 * The same as PIL on a plain upright image, to within 1 grey level of 255 in the mean (see resample.ts). By rule:
 *   - upright: EXIF orientation is applied first (transformers leaves that to its caller);
 *   - transparency is composited on white. PIL's convert("RGB") drops alpha, which shows whatever colour lies under the
 *     transparent pixels, often black or noise; white is the page that such images are made for and seen on;
 *   - 16 bits a channel are scaled to 8 (PIL clips 16-bit grey, which leaves it nearly white);
 *   - embedded colour profiles are ignored, as PIL ignores them, and CMYK is converted without one;
 *   - of an animation or a file of several pages, the first.
 *
 * The work is done on libuv's threads, so many calls may run at once; as many decode in parallel as there are threads
 * (UV_THREADPOOL_SIZE, 4 by default).
 *
 * @param bytes The whole file. Not to be changed until the promise settles.
 * @returns uint8 RGB, [height, width, 3].
 * @throws CapfleetError IMAGE_EMPTY, IMAGE_TOO_MANY_PIXELS, IMAGE_TOO_SLOW, IMAGE_UNREADABLE
 */
export async function decode(bytes: Uint8Array, size: Size, limits: Limits): Promise<Buffer> {
  const [pixels] = await decodeAll(bytes, [size], limits);
  return pixels!;
}

/** Largest picture, in pixels, that is held as a whole to be resized more than once: at 3 bytes each, 48 MB. */
const WHOLE_PIXELS = 2 ** 24;

/**
 * The same in several sizes, each to the last bit what `decode` gives. The file is decoded once where that is possible: see
 * `isReadWhole`, and what would be large in memory is decoded for each size.
 */
export async function decodeAll(bytes: Uint8Array, sizes: readonly Size[], limits: Limits): Promise<Buffer[]> {
  if (bytes.length === 0) throw new CapfleetError("IMAGE_EMPTY", "the image has no bytes");
  const header = await readHeader(bytes, limits.maxPixels);
  const { width, height } = header.upright;
  const pixels = width * height;
  const release = pixels >= LARGE_PIXELS ? await large.acquire(pixels) : null;
  try {
    const isShared = pixels <= WHOLE_PIXELS && sizes.every((size) => isReadWhole(header, size));
    const file = { bytes, header, maxSeconds: limits.maxSeconds };
    const source = isShared && sizes.length > 1 ? { ...file, bytes: await readWhole(file) } : file;
    const all: Buffer[] = [];
    for (const size of sizes) {
      const raster = header.cmyk ? await readCmyk(source, size) : await readRgb(source, size);
      all.push((await finish(raster, size)).data);
    }
    return all;
  } finally {
    release?.();
  }
}

interface Source {
  bytes: Uint8Array;
  header: Header;
  maxSeconds: number;
}

/**
 * The picture as an uncompressed TIFF, which says which side is up. Raw pixels would do, but for the last bit: libvips reads
 * files in strips, from the top, and pixels in memory in other pieces, and where a piece begins decides how the weights of
 * bicubic are rounded.
 */
async function readWhole(source: Source): Promise<Buffer> {
  const { header } = source;
  const build = (file: Sharp) => {
    const flat = file.flatten({ background: PAPER }).tiff({ compression: "none" });
    return header.orientation === 1 ? flat : flat.withMetadata({ orientation: header.orientation });
  };
  return read(source, build, (pipeline, run = together) => run(() => pipeline.toBuffer()));
}

async function readRgb(source: Source, size: Size): Promise<Raster> {
  const build = (file: Sharp) =>
    file
      .autoOrient()
      .flatten({ background: PAPER })
      .resize(...firstPass(source.header, size));
  return read(source, build, rasterOf);
}

async function readCmyk(source: Source, size: Size): Promise<Raster> {
  // Both spaces, or libvips would convert by a profile of its own.
  const build = (file: Sharp) =>
    file
      .autoOrient()
      .pipelineColourspace("cmyk")
      .toColourspace("cmyk")
      .resize(...firstPass(source.header, size));
  return rgbFromCmyk(await read(source, build, rasterOf));
}

/** Runs a pipeline; see `rasterOf`. */
type Take<T> = (pipeline: Sharp, run?: typeof together) => Promise<T>;

/**
 * Decodes. A cut-off or damaged file must not become a picture that is half grey, and a file with something odd in its
 * wrapping (libvips' "warnings": TIFF tags out of order, stray bytes between JPEG markers) must not be refused. `failOn:
 * "error"` is that line for all formats but JPEG, where libjpeg only warns about damaged data and goes on in grey: there
 * it depends on what it warned of.
 */
async function read<T>(source: Source, build: (file: Sharp) => Sharp, take: Take<T>): Promise<T> {
  const { bytes, header, maxSeconds: seconds } = source;
  const open = (failOn: SharpOptions["failOn"]) =>
    build(sharp(bytes, { failOn, ignoreIcc: true, limitInputPixels: false }).timeout({ seconds }));
  const started = performance.now();
  // What libvips says of it may be gone (see gate.ts), but what fails before is no matter of time.
  const isLate = () => performance.now() - started >= seconds * 1_000;
  try {
    if (header.format !== "jpeg") return await take(open("error"));
    const flawless = await take(open("warning")).catch((thrown: unknown) => {
      if (isLate()) throw thrown;
    });
    if (flawless) return flawless;
    const flawed = await take(open("error"));
    await refuseDamage(() => take(open("warning"), alone));
    return flawed;
  } catch (thrown) {
    if (isLate()) throw new CapfleetError("IMAGE_TOO_SLOW", `the image took longer than ${seconds} s to decode`);
    throw unreadable(thrown, bytes);
  }
}

/** For a JPEG that libjpeg warned about. Throws if its first warning is about the picture's data. */
async function refuseDamage(strictly: () => Promise<unknown>): Promise<void> {
  await strictly().catch((thrown: unknown) => {
    // The messages of jerror.h: JWRN_HIT_MARKER, JWRN_HUFF_BAD_CODE, JWRN_ARITH_BAD_CODE, JWRN_MUST_RESYNC.
    const damage = /premature end of data segment|bad Huffman code|bad arithmetic code|instead of RST/;
    if (damage.test(String(thrown))) throw thrown;
  });
}

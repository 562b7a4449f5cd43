import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CapfleetError } from "@capfleet/shared/contract";
import sharp from "@capfleet/shared/libvips";
import { afterAll, describe, expect, test } from "vitest";
import { hostileImages } from "../../../../test/support/images/index.ts";
import { DEFAULT_MAX_PIXELS, decode } from "../../src/pixels/index.ts";
import { afterSoi, bytesOf, closedEarly, decodeTo, latin1, names, withStrayBytes } from "./fixture.ts";

const SIZE = { width: 64, height: 64 };

/** The error that decoding ends in; undefined if it doesn't. */
async function failure(
  bytes: Uint8Array,
  maxPixels = DEFAULT_MAX_PIXELS,
  maxSeconds = 120,
): Promise<CapfleetError | undefined> {
  try {
    await decode(bytes, SIZE, { maxPixels, maxSeconds });
  } catch (thrown) {
    if (thrown instanceof CapfleetError) return thrown;
    throw thrown;
  }
  return undefined;
}

describe("files that break pipelines", async () => {
  const dir = await mkdtemp(join(tmpdir(), "capfleet-hostile-"));
  afterAll(() => rm(dir, { recursive: true }));

  test.each(await hostileImages(dir))("$name: $expect", async ({ name, expect: expected }) => {
    const error = await failure(await readFile(join(dir, name)));
    expect(error?.code ?? "caption").toBe(expected);
  });

  test("pixels are counted before any is decoded: the header is enough", async () => {
    const enormous = await readFile(join(dir, "enormous.png"));
    const error = await failure(enormous.subarray(0, 100));
    expect(error?.code).toBe("IMAGE_TOO_MANY_PIXELS");
    expect(error?.message).toBe("the image has 50000 × 50000 pixels; the limit is 178956970");
  });

  test("an image that takes too long is given up", async () => {
    // 2.5 billion pixels: no machine decodes them within a second.
    const error = await failure(await readFile(join(dir, "enormous.png")), 2 ** 32, 1);
    expect(error).toMatchObject({
      code: "IMAGE_TOO_SLOW",
      message: "the image took longer than 1 s to decode",
      retryable: false,
    });
  });
});

test("the limit itself is allowed", async () => {
  const bytes = bytesOf("images", "plain.png"); // 120 × 88
  expect(await failure(bytes, 120 * 88)).toBeUndefined();
  expect((await failure(bytes, 120 * 88 - 1))?.code).toBe("IMAGE_TOO_MANY_PIXELS");
});

/** Grey, of so many pixels a side: some kilobytes. Interlaced, it can only be decoded as a whole. */
const blank = (side: number, interlaced = false) =>
  sharp({ create: { width: side, height: side, channels: 3, background: "#888" }, limitInputPixels: false })
    .png({ progressive: interlaced, compressionLevel: 1 })
    .toBuffer();

test("large images are not decoded at the same time", async () => {
  const [bytes, small] = [await blank(10_000), await blank(100)];
  let most = 0;
  const looking = setInterval(() => {
    most = Math.max(most, sharp.counters().process);
  }, 1);
  const all = await Promise.all([bytes, bytes, bytes].map((file) => failure(file)));
  clearInterval(looking);
  expect({ all, most }).toEqual({ all: [undefined, undefined, undefined], most: 1 });
  expect(await failure(small)).toBeUndefined();
});

test.each(names("refused"))("%s is not opened", async (name) => {
  expect((await failure(bytesOf("refused", name)))?.code).toBe("IMAGE_UNREADABLE");
});

test.each([
  "plain.jpg",
  "progressive.jpg",
  "orientation-6.jpg",
  "plain.png",
  "plain.webp",
  "alpha-lossless.webp",
  "transparent.gif",
  "fax.tif",
  "jpeg.tif",
  "orientation-3.tif",
  "plain.avif",
])("%s cut off anywhere is an error, or has lost nothing", async (name) => {
  const bytes = bytesOf("images", name);
  const whole = await decodeTo(SIZE, bytes);
  const lengths = Array.from({ length: 32 }, (_, i) => Math.ceil((bytes.length * (i + 1)) / 33));
  let errors = 0;
  // The last bytes of a PNG or GIF only say that it ends.
  for (const length of [...lengths, bytes.length - 12, bytes.length - 1]) {
    const result = await decodeTo(SIZE, bytes.subarray(0, length)).catch((thrown: unknown) => thrown);
    if (Buffer.isBuffer(result)) expect(result.equals(whole), `cut at ${length} of ${bytes.length}`).toBe(true);
    else expect(result).toMatchObject({ code: "IMAGE_UNREADABLE" });
    if (!Buffer.isBuffer(result)) errors++;
  }
  expect(errors).toBeGreaterThanOrEqual(lengths.length);
});

test.each(["plain.jpg", "progressive.jpg"])("%s cut off and closed with an end marker is an error", async (name) => {
  expect(await failure(closedEarly(bytesOf("images", name)))).toMatchObject({
    code: "IMAGE_UNREADABLE",
    message: "the image can't be decoded: VipsJpeg: Corrupt JPEG data: premature end of data segment",
  });
});

test("a flipped bit in a PNG's data is an error", async () => {
  const bytes = bytesOf("images", "plain.png");
  bytes[bytes.length >> 1]! ^= 1;
  expect((await failure(bytes))?.code).toBe("IMAGE_UNREADABLE");
});

describe("what is odd but harmless is decoded", () => {
  const jpeg = bytesOf("images", "plain.jpg");
  const png = bytesOf("images", "plain.png");
  const tiff = bytesOf("images", "orientation-3.tif");
  const afterIhdr = (bytes: Buffer) => Buffer.concat([png.subarray(0, 33), bytes, png.subarray(33)]);
  test.each<[string, Buffer, Buffer]>([
    ["stray bytes between JPEG markers", withStrayBytes(jpeg), jpeg],
    ["broken EXIF", afterSoi(jpeg, latin1("\xff\xe1\x00\x12Exif\0\0MM\0*\xff\xff\xff\xff!!")), jpeg],
    ["a broken colour profile", afterSoi(jpeg, latin1("\xff\xe2\x00\x14ICC_PROFILE\0\x01\x01junk")), jpeg],
    ["bytes after a JPEG's end", Buffer.concat([jpeg, Buffer.alloc(500, 1)]), jpeg],
    ["bytes after a PNG's end", Buffer.concat([png, Buffer.alloc(500, 1)]), png],
    ["a PNG comment with a wrong checksum", afterIhdr(latin1("\0\0\0\x03tEXta\0b\0\0\0\0")), png],
    ["TIFF tags out of order", withTagsSwapped(tiff), tiff],
  ])("%s", async (_, bytes, clean) => {
    expect((await decodeTo(SIZE, bytes)).equals(await decodeTo(SIZE, clean))).toBe(true);
  });
});

/** Swaps the first two entries of a little-endian TIFF's directory. */
function withTagsSwapped(tiff: Buffer): Buffer {
  const first = tiff.readUInt32LE(4) + 2;
  const [second, end] = [first + 12, first + 24];
  const entries = [tiff.subarray(second, end), tiff.subarray(first, second)];
  return Buffer.concat([tiff.subarray(0, first), ...entries, tiff.subarray(end)]);
}

describe("the reason is one line", () => {
  const cut = (name: string) => bytesOf("images", name).subarray(0, bytesOf("images", name).length / 2);

  test.each<[string, Buffer, RegExp]>([
    ["of another format", bytesOf("refused", "image.svg"), /^not a JPEG, PNG, WebP, GIF, TIFF or AVIF file$/],
    [
      "of a codec that AVIF's container also has",
      bytesOf("refused", "image.heic"),
      /^HEIF with hevc inside is not AVIF$/,
    ],
    ["of pixels", bytesOf("refused", "float.tif"), /^TIFF with 1 channel\(s\) of b-w, float$/],
    ["of the decoder", cut("plain.avif"), /^heif: Invalid input: [^\n]+$/],
    ["the first of many", damaged(bytesOf("images", "fax.tif")), /^tiff2vips: Bad code word at line \d+ [^\n]+$/],
  ])("%s", async (_, bytes, reason) => {
    const message = (await failure(bytes))?.message ?? "";
    expect(message).toMatch(/^the image can't be decoded: /);
    expect(message.replace("the image can't be decoded: ", "")).toMatch(reason);
  });
});

function damaged(bytes: Buffer): Buffer {
  bytes[Math.floor(bytes.length / 10)]! ^= 0xff;
  return bytes;
}

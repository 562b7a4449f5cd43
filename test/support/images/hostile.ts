import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { constants, crc32, createDeflate } from "node:zlib";
import type { ErrorCode } from "@capfleet/shared/contract";
import sharp from "sharp";
import { smallJpeg } from "./small.ts";

export interface HostileImage {
  name: string;
  /** What a job should make of it: a caption like any other image's, or a row with this error. */
  expect: "caption" | ErrorCode;
}

/**
 * Writes the files that break image pipelines, and one that only looks as if it did: it has a difficult name.
 *
 * @param dir An existing folder.
 */
export async function hostileImages(dir: string): Promise<HostileImage[]> {
  const jpeg = await smallJpeg(0, 0);
  const png = await sharp({ create: { width: 256, height: 256, channels: 3, background: "teal" } })
    .png({ compressionLevel: 0 })
    .toBuffer();
  const files: [name: string, expect: HostileImage["expect"], bytes: Buffer][] = [
    ["text.jpg", "IMAGE_UNREADABLE", Buffer.from("This is not an image.\n")],
    ["truncated.jpg", "IMAGE_UNREADABLE", jpeg.subarray(0, jpeg.length / 2)],
    ["truncated.png", "IMAGE_UNREADABLE", png.subarray(0, png.length / 2)],
    ["empty.jpg", "IMAGE_EMPTY", Buffer.alloc(0)],
    ["enormous.png", "IMAGE_TOO_MANY_PIXELS", await enormousPng()],
    ["svg.png", "IMAGE_UNREADABLE", Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')],
    ["50% off? #1 & ünïcödé 東京 🦊+%20.jpg", "caption", jpeg],
  ];
  await Promise.all(files.map(([name, , bytes]) => writeFile(join(dir, name), bytes)));
  return files.map(([name, expect]) => ({ name, expect }));
}

const SIDE = 50_000;
const BAND = 100;

/** A valid black PNG of 50,000 × 50,000 pixels, 1 bit each. It has 300 KB: deflate packs 1032 to 1 at best. */
async function enormousPng(): Promise<Buffer> {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(SIDE, 0);
  header.writeUInt32BE(SIDE, 4);
  header[8] = 1; // bits a pixel; the zeros after it: grey, deflate, standard filters, not interlaced
  const rows = Buffer.alloc(BAND * (1 + Math.ceil(SIDE / 8))); // a row is a filter's number and pixels
  const bands = Readable.from(repeat(rows, SIDE / BAND));
  const pixels = await buffer(bands.pipe(createDeflate({ strategy: constants.Z_RLE })));
  const signature = Buffer.from("\x89PNG\r\n\x1a\n", "latin1");
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", Buffer.alloc(0))]);
}

function* repeat<T>(item: T, times: number): Generator<T> {
  for (let i = 0; i < times; i++) yield item;
}

function chunk(kind: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(kind, "latin1"), data]);
  const framed = Buffer.alloc(body.length + 8);
  framed.writeUInt32BE(data.length, 0);
  body.copy(framed, 4);
  framed.writeUInt32BE(crc32(body), body.length + 4);
  return framed;
}

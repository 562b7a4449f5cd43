import { readdirSync, readFileSync } from "node:fs";
import sharp from "@capfleet/shared/libvips";
import { decode } from "../../src/pixels/index.ts";
import { type Raster, rasterOf, type Size } from "../../src/pixels/raster.ts";

const FIXTURES = new URL("fixtures/", import.meta.url);
const DEMO = new URL("../../../../test/demo/images/", import.meta.url);

/** A folder of fixtures (make_reference.py says what is in each), or the demo's images. */
export type Folder = "images" | "references" | "samples" | "refused" | "demo";

export function names(folder: Folder): string[] {
  return readdirSync(place(folder)).sort();
}

export function bytesOf(folder: Folder, name: string): Buffer {
  return readFileSync(new URL(encodeURIComponent(name), place(folder)));
}

export async function referenceOf(folder: "references" | "samples", name: string): Promise<Raster> {
  return rasterOf(sharp(bytesOf(folder, `${name}.png`)));
}

/** With a limit that no fixture comes near. */
export function decodeTo(size: Size, bytes: Uint8Array): Promise<Buffer> {
  return decode(bytes, size, { maxPixels: 10_000_000, maxSeconds: 120 });
}

/** Mean absolute difference of each channel, in grey levels of 255. */
export function differences(pixels: Buffer, reference: Raster): number[] {
  const sums = Array.from({ length: reference.channels }, () => 0);
  for (const [i, value] of pixels.entries()) sums[i % sums.length]! += Math.abs(value - reference.data[i]!);
  return sums.map((sum) => sum / (reference.width * reference.height));
}

export function latin1(text: string): Buffer {
  return Buffer.from(text, "latin1");
}

/** A JPEG with something more behind its start marker. */
export function afterSoi(jpeg: Buffer, bytes: Buffer): Buffer {
  return Buffer.concat([jpeg.subarray(0, 2), bytes, jpeg.subarray(2)]);
}

/** A JPEG with bytes between two markers that belong to neither; libjpeg warns of them. */
export function withStrayBytes(jpeg: Buffer): Buffer {
  return afterSoi(jpeg, latin1("\xff\xe1\x00\x08junk!!\x09\x09\x09"));
}

/** A JPEG's first half with an end marker; libjpeg warns and makes the rest grey. */
export function closedEarly(jpeg: Buffer): Buffer {
  return Buffer.concat([jpeg.subarray(0, jpeg.length / 2), latin1("\xff\xd9")]);
}

function place(folder: Folder): URL {
  return folder === "demo" ? DEMO : new URL(`${folder}/`, FIXTURES);
}

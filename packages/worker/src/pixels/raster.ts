import type { Sharp } from "sharp";
import { together } from "./gate.ts";

/** In pixels, at least 1 × 1. */
export interface Size {
  width: number;
  height: number;
}

/** Pixels in memory: uint8, [height, width, channels], rows without padding. */
export interface Raster extends Size {
  data: Buffer;
  channels: 1 | 2 | 3 | 4;
}

/**
 * Runs a pipeline on one of libuv's threads. Throws what libvips throws.
 *
 * @param run How, among other pipelines: see gate.ts.
 */
export async function rasterOf(pipeline: Sharp, run: typeof together = together): Promise<Raster> {
  const { data, info } = await run(() => pipeline.raw().toBuffer({ resolveWithObject: true }));
  return { data, width: info.width, height: info.height, channels: info.channels };
}

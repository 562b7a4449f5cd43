import type { Raster } from "./raster.ts";

/**
 * CMYK to RGB the way PIL does it, without any profile: R = (255 - C)(255 - K) / 255, and so on, rounded. It is done
 * after the first pass, on at most 16 times the model's pixels and by the main thread; PIL does it before any. (JPEGs hold CMYK inverted, with or
 * without Adobe's marker to say so; libvips, like PIL, has set that right.)
 *
 * @param ink `channels` is 4; 255 is full ink.
 */
export function rgbFromCmyk(ink: Raster): Raster {
  const pixels = ink.width * ink.height;
  const data = Buffer.allocUnsafe(pixels * 3);
  for (let i = 0; i < pixels; i++) {
    const unblackened = 255 - ink.data[i * 4 + 3]!;
    for (let c = 0; c < 3; c++) {
      data[i * 3 + c] = Math.round(((255 - ink.data[i * 4 + c]!) * unblackened) / 255);
    }
  }
  return { ...ink, data, channels: 3 };
}

/**
 * Against PIL's pixels (make_reference.py). A difference is the mean over an image of one channel's absolute differences,
 * in grey levels of 255.
 *
 * The promise is less than 1, on every channel of every image. What is measured is mostly 0.02 to 0.3: libvips rounds
 * positions to 1/64 of a pixel, and axes that are reduced far are resampled twice (see resample.ts); composited images
 * have 0.4 to 0.5, as libvips rounds down there. The bound is 0.5, so that a shift, a wrong order of steps or a coarser
 * shortcut, which cost 1 and more, are seen before the promise is broken.
 */
import { expect, test } from "vitest";
import { bytesOf, decodeTo, differences, names, referenceOf } from "./fixture.ts";

const BOUND = 0.5;

const WIDER: Record<string, [bound: number, why: string]> = {
  "cmyk-large.jpg": [1, "PIL converts CMYK before any resampling; here it is done after the first, and isn't linear"],
  "half-chroma.avif": [3, "libheif repeats the half-width colour planes, PIL's libavif interpolates them"],
  "size-tiny.png": [3, "2 × 3 pixels are all edge: PIL leaves out what is beyond it, libvips repeats the edge"],
};

test.each(names("images"))("%s", async (name) => {
  const [bound] = WIDER[name] ?? [BOUND];
  const reference = await referenceOf("references", name);
  const pixels = await decodeTo(reference, bytesOf("images", name));
  expect(pixels).toHaveLength(reference.width * reference.height * 3);
  for (const difference of differences(pixels, reference)) expect(difference).toBeLessThan(bound);
});

test.each(names("demo"))("demo image %s", async (name) => {
  const reference = await referenceOf("samples", name);
  const pixels = await decodeTo(reference, bytesOf("demo", name));
  for (const difference of differences(pixels, reference)) expect(difference).toBeLessThan(BOUND);
});

test("a plain image that has the model's size already is not touched", async () => {
  const reference = await referenceOf("references", "size-exact.png");
  expect(await decodeTo(reference, bytesOf("images", "size-exact.png"))).toEqual(reference.data);
});

test("the file may lie in the middle of a larger buffer", async () => {
  const whole = bytesOf("images", "plain.png");
  const inside = new Uint8Array(whole.length + 20).fill(7);
  inside.set(whole, 10);
  const size = { width: 30, height: 20 };
  expect(await decodeTo(size, inside.subarray(10, -10))).toEqual(await decodeTo(size, whole));
});

import sharp from "@capfleet/shared/libvips";
import { expect, test } from "vitest";
import { bytesOf, closedEarly, decodeTo, names, withStrayBytes } from "./fixture.ts";

test("an image is the same whatever else is being decoded, and whatever fails", async () => {
  const size = { width: 64, height: 48 };
  const good = names("images").map((name) => bytesOf("images", name));
  const bad = names("refused").map((name) => bytesOf("refused", name));
  const alone: Buffer[] = [];
  for (const bytes of good) alone.push(await decodeTo(size, bytes));
  // The good ones three times over, with a bad one after each.
  const together = await Promise.all(
    [...good, ...good, ...good].map(async (bytes, i) => {
      const [pixels] = await Promise.all([
        decodeTo(size, bytes),
        expect(decodeTo(size, bad[i % bad.length]!)).rejects.toMatchObject({ code: "IMAGE_UNREADABLE" }),
      ]);
      return pixels;
    }),
  );
  for (const [i, pixels] of together.entries()) expect(pixels.equals(alone[i % alone.length]!)).toBe(true);
});

test("whether libjpeg's warning is of damage is told apart among others, for all that they share a message buffer", async () => {
  const size = { width: 64, height: 48 };
  const jpeg = bytesOf("images", "plain.jpg");
  const pixels = await decodeTo(size, jpeg);
  await Promise.all(
    Array.from({ length: 200 }, async (_, i) => {
      if (i % 3 === 0) await expect(decodeTo(size, withStrayBytes(jpeg))).resolves.toEqual(pixels);
      else if (i % 3 === 1)
        await expect(decodeTo(size, closedEarly(jpeg))).rejects.toThrow("premature end of data segment");
      else await decodeTo(size, jpeg);
    }),
  );
});

test("an error's reason is about its own image", async () => {
  const cut = (name: string) => bytesOf("images", name).subarray(0, 3_000);
  const reasons: [Buffer, RegExp][] = [
    [cut("plain.jpg"), /: (VipsJpeg: [^\n]+|cut-off, damaged or unusual JPEG data)$/],
    [cut("plain.png"), /: (vipspng: [^\n]+|cut-off, damaged or unusual PNG data)$/],
  ];
  await Promise.all(
    Array.from({ length: 200 }, async (_, i) => {
      const [bytes, reason] = reasons[i % reasons.length]!;
      await expect(decodeTo({ width: 64, height: 48 }, bytes)).rejects.toThrow(reason);
    }),
  );
});

test("libvips runs one thread an image, and keeps nothing", () => {
  expect(sharp.concurrency()).toBe(1);
  expect(sharp.cache()).toMatchObject({ memory: { max: 0 }, files: { max: 0 }, items: { current: 0, max: 0 } });
});

test("libvips opens no paths", async () => {
  const path = new URL("fixtures/images/plain.png", import.meta.url).pathname;
  await expect(sharp(path).toBuffer()).rejects.toThrow("unsupported image format");
});

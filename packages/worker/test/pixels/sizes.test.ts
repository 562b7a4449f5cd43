/** Several sizes of one file: the same pixels as one by one, for the price of one decode where that is possible. */
import { beforeEach, expect, test, vi } from "vitest";
import { decode, decodeAll } from "../../src/pixels/index.ts";
import type { Size } from "../../src/pixels/raster.ts";
import { bytesOf, closedEarly, names, withStrayBytes } from "./fixture.ts";

const opened = vi.hoisted(() => ({ inputs: [] as unknown[] }));
/** The real one, which notes what it is given. */
vi.mock("@capfleet/shared/libvips", async (original) => {
  const { default: sharp } = await original<typeof import("@capfleet/shared/libvips")>();
  const apply = (target: typeof sharp, self: unknown, args: unknown[]) => {
    opened.inputs.push(args[0]);
    return Reflect.apply(target, self, args);
  };
  return { default: new Proxy(sharp, { apply }) };
});
const { default: sharp } = await vi.importActual<typeof import("@capfleet/shared/libvips")>("@capfleet/shared/libvips");

beforeEach(() => {
  opened.inputs = [];
});

const square = (side: number): Size => ({ width: side, height: side });
const limits = { maxPixels: 2 ** 26, maxSeconds: 120 };

/** How often the file was opened: once for its header, once more each time that it was decoded. */
async function decodes(bytes: Buffer, sizes: Size[]): Promise<number> {
  opened.inputs = [];
  const together = await decodeAll(bytes, sizes, limits);
  const count = opened.inputs.filter((input) => input === bytes).length - 1;
  for (const [i, size] of sizes.entries()) {
    const alone = await decode(bytes, size, limits);
    expect(together[i]!.length).toBe(size.width * size.height * 3);
    expect(together[i]!.equals(alone), `${size.width} × ${size.height}`).toBe(true);
  }
  return count;
}

test.each(names("images"))("%s", async (name) => {
  const sizes = [square(64), { width: 160, height: 20 }, square(400)];
  const count = await decodes(bytesOf("images", name), sizes);
  const isApart = /cmyk|ycck|16\.|size-(large|near-and-far)\.jpg/.test(name);
  expect(count).toBe(isApart ? sizes.length : 1);
});

const noise = (width: number, height: number) =>
  sharp({
    create: { width, height, channels: 3, background: "#888", noise: { type: "gaussian", mean: 128, sigma: 60 } },
  });

test("photographs at the sizes of checkpoints, on both sides of where JPEGs are decoded at a fraction", async () => {
  const sizes = [square(96), square(64)];
  for (const [width, height, count] of [
    [300, 200, 1],
    [577, 575, 1],
    [577, 576, 2],
    [1000, 900, 2],
  ] as const) {
    const picture = noise(width, height);
    expect(await decodes(await picture.clone().jpeg({ quality: 90 }).toBuffer(), sizes), `${width} × ${height}`).toBe(
      count,
    );
    expect(await decodes(await picture.clone().png().toBuffer(), sizes)).toBe(1);
    expect(await decodes(await picture.clone().webp().toBuffer(), sizes)).toBe(1);
  }
});

test("a picture that would be large in memory is decoded for each size", async () => {
  const png = await noise(4_097, 4_096).png({ compressionLevel: 0 }).toBuffer();
  expect(await decodes(png, [square(64), square(48)])).toBe(2);
});

test("a JPEG that libjpeg warns of is taken or refused as for one size", async () => {
  const sizes = [square(64), square(48)];
  const jpeg = bytesOf("images", "plain.jpg");
  expect(await decodeAll(withStrayBytes(jpeg), sizes, limits)).toEqual(await decodeAll(jpeg, sizes, limits));
  await expect(decodeAll(closedEarly(jpeg), sizes, limits)).rejects.toMatchObject({
    code: "IMAGE_UNREADABLE",
    message: expect.stringContaining("premature end of data segment"),
  });
});

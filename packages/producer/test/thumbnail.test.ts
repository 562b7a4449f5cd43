/** Small pictures: of what, and of what not. */
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { crc32 } from "node:zlib";
import sharp from "@capfleet/shared/libvips";
import { FileStore, type Store, storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, beforeAll, expect, test } from "vitest";
import { writeJob } from "../../../test/support/job-objects.ts";
import { RecordImages } from "../src/pictures/records.ts";
import { thumbnailOf } from "../src/pictures/thumbnail.ts";

const SCENE = new URL("../../../test/demo/images/scene-006.png", import.meta.url);
const stores = storesFromEnv({});
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-thumbnail-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function small(name: string, bytes: Uint8Array | string, signal?: AbortSignal) {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return thumbnailOf({ image: pathToFileURL(path).href }, 64, stores, signal);
}
const red = (width: number, height: number) =>
  sharp({ create: { width, height, channels: 4, background: { r: 255, g: 0, b: 0, alpha: 0 } } });

test("a JPEG that fits into the square, upright, on white, never larger than the picture", async () => {
  const turned = await red(300, 100).jpeg().withMetadata({ orientation: 6 }).toBuffer();
  expect(await sharp(await small("turned.jpg", turned)).metadata()).toMatchObject({
    format: "jpeg",
    width: 21,
    height: 64,
  });
  const clear = await sharp(await small("clear.png", await red(10, 10).png().toBuffer()))
    .raw()
    .toBuffer({ resolveWithObject: true });
  expect([clear.info.width, ...clear.data.subarray(0, 3)]).toEqual([10, 255, 255, 255]);
});

test("neither drawings, nor damaged files, nor more pixels than may be are opened", async () => {
  await copyFile(SCENE, join(folder, "scene.png"));
  const bomb = Buffer.from(
    await stores
      .at(folder)
      .read("scene.png")
      .then(({ bytes }) => bytes),
  );
  // IHDR says 100,000 × 100,000, with the right checksum.
  bomb.writeUInt32BE(100_000, 16);
  bomb.writeUInt32BE(100_000, 20);
  bomb.writeUInt32BE(crc32(bomb.subarray(12, 29)), 29);
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>';
  for (const [name, bytes] of [
    ["bomb.png", bomb],
    ["drawn.svg", svg],
    ["text.jpg", "no picture"],
  ] as const)
    await expect(small(name, bytes), name).rejects.toMatchObject({ code: "IMAGE_UNREADABLE" });
  await expect(small("empty.jpg", "")).rejects.toMatchObject({ code: "IMAGE_EMPTY" });
  await expect(thumbnailOf({ image: `file://${folder}/gone.jpg` }, 64, stores)).rejects.toMatchObject({
    code: "IMAGE_NOT_FOUND",
  });
});

test("a shard's records are read once for all of its pictures, and not kept for ever", async () => {
  const reads: string[] = [];
  const store = new FileStore(folder);
  const counted: Store = new Proxy(store, {
    get: (target, name) => {
      if (name === "read") reads.push("");
      const value = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const line = (n: number) => ({
    record: { id: `${n}`, image: n === 1 ? null : `s3://b/${n}` },
    row: { id: `${n}`, image: null },
  });
  await writeJob(store, { task: { name: "embed", texts: null }, shards: 40, perShard: 3, line });
  const images = new RecordImages();
  const found = await Promise.all([0, 2, 0].map((at) => images.find("j", counted, 0, at)));
  expect(found.map(({ image }) => image)).toEqual(["s3://b/0", "s3://b/2", "s3://b/0"]);
  expect(reads).toHaveLength(1);
  for (let shard = 1; shard < 40; shard++) await images.find("j", counted, shard, 0);
  expect(reads).toHaveLength(40);
  await images.find("j", counted, 39, 1);
  await images.find("j", counted, 0, 0);
  expect(reads).toHaveLength(41);
  // No picture, no such line, no such shard: which may come to be.
  for (const [shard, at] of [
    [0, 1],
    [0, 3],
    [40, 0],
    [40, 0],
  ] as const)
    await expect(images.find("j", counted, shard, at)).rejects.toMatchObject({ code: "ROW_NOT_FOUND" });
  expect(reads).toHaveLength(43);
});

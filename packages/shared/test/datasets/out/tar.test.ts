/** Tars as they are read elsewhere: by GNU tar, by Python's tarfile, and by our own reader. */
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { DEMO } from "../../../../../test/support/processes.ts";
import { decodingSchema, inputSchema, type JobTaskSpec, type ResultRow } from "../../../src/contract/index.ts";
import {
  fetchImage,
  imageEnding,
  rowKey,
  type SampleWithImage,
  samplesOf,
  tarFile,
  webdatasetDataset,
} from "../../../src/datasets/index.ts";
import { storesFromEnv } from "../../../src/storage/index.ts";

const IMAGES = ["scene-003.jpg", "scene-006.png", "scene-018.webp"];
const caption: JobTaskSpec = { name: "caption", decoding: decodingSchema.parse({}), captions: 1, prompt: null };
let folder: string;
let images: Buffer[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-tar-"));
  images = await Promise.all(IMAGES.map((name) => readFile(join(DEMO, "images", name))));
});
afterEach(() => rm(folder, { recursive: true }));

const rowOf = (n: number): ResultRow => {
  const long = "p/".repeat(200);
  return {
    id: `${long}${n}.größe.jpg`,
    image: `s3://b/${n}`,
    caption: `Bild ${n} 🐕`,
    score: -n,
    kept: { alt: "x", id: 7 },
  };
};

async function* samples(count: number): AsyncGenerator<SampleWithImage> {
  for (let n = 0; n < count; n++) {
    const row = { ...rowOf(n), data: "data/x.tar" };
    const image = images[n % IMAGES.length]!;
    const [sample] = samplesOf(caption, { key: rowKey(12, n), record: { id: row.id, image: row.image }, row });
    yield { ...sample!, image, ending: imageEnding(image, "x") };
  }
}

async function write(count: number): Promise<string> {
  const path = join(folder, "a.tar");
  await writeFile(path, Buffer.concat(await Array.fromAsync(tarFile(samples(count)))));
  return path;
}

test("image, text and json of a row are neighbours; GNU tar gives back the bytes", async () => {
  const path = await write(7);
  const names = execFileSync("tar", ["-tf", path], { encoding: "utf8" }).trimEnd().split("\n");
  const endings = IMAGES.map(extname);
  const expected = Array.from({ length: 7 }, (_, n) =>
    [endings[n % 3]!, ".txt", ".json"].map((ending) => `000012000${n}${ending}`),
  );
  expect(names).toEqual(expected.flat());
  execFileSync("tar", ["-xf", path, "-C", folder]);
  expect((await readFile(join(folder, `0000120004${endings[1]}`))).equals(images[1]!)).toBe(true);
  expect(await readFile(join(folder, "0000120004.txt"), "utf8")).toBe("Bild 4 🐕");
  // What was kept stands beside the row's own, which has its name first.
  const json = JSON.parse(await readFile(join(folder, "0000120004.json"), "utf8"));
  expect(json).toEqual({ alt: "x", ...rowOf(4) });
});

test("no clock has a part in the bytes", async () => {
  const first = await readFile(await write(3));
  await new Promise((resolve) => setTimeout(resolve, 1_100));
  expect((await readFile(await write(3))).equals(first)).toBe(true);
});

test("our own reader finds the same images and texts", async () => {
  const path = await write(7);
  const stores = storesFromEnv({});
  const input = inputSchema.parse({ kind: "webdataset", uri: `file://${path}`, keep: ["id", "caption"] });
  const task: JobTaskSpec = { name: "itm", texts: { column: "txt" } };
  const entries = (await Array.fromAsync(webdatasetDataset(input, stores, task).entries(null))).flat();
  expect(entries).toHaveLength(7);
  for (const [n, { record }] of entries.entries()) {
    const { id, caption } = rowOf(n);
    expect(record).toMatchObject({ id: rowKey(12, n), texts: [caption], kept: { id, caption } });
    expect((await fetchImage(record, stores, 2 ** 26)).bytes.equals(images[n % 3]!)).toBe(true);
  }
});

const python = (() => {
  try {
    execFileSync("python3", ["--version"]);
    return true;
  } catch {
    return false;
  }
})();

test.skipIf(!python)("as a trainer reads it, with Python's tarfile (skipped where there is no python3)", async () => {
  const script = `
import json, sys, tarfile
samples = {}
tar = tarfile.open(sys.argv[1], "r|")
for member in tar:
    key, ending = member.name.split(".", 1)
    samples.setdefault(key, {})[ending] = len(tar.extractfile(member).read())
print(json.dumps(samples))
`;
  const found = JSON.parse(execFileSync("python3", ["-c", script, await write(4)], { encoding: "utf8" }));
  const expected: Record<string, object> = {};
  for await (const { key, ending, image, text, json } of samples(4)) {
    expected[key] = {
      [ending]: image.length,
      txt: Buffer.byteLength(text!),
      json: Buffer.byteLength(JSON.stringify(json)),
    };
  }
  expect(found).toEqual(expected);
});

test("what the samples throw, the tar's reader throws", async () => {
  const failure = new Error("the store is away");
  const broken = async function* () {
    yield* samples(1);
    throw failure;
  };
  await expect(Array.fromAsync(tarFile(broken()))).rejects.toBe(failure);
});

test("a reader that stops ends the samples as well", async () => {
  const ended = Promise.withResolvers<void>();
  const watched = async function* () {
    try {
      yield* samples(1_000);
    } finally {
      ended.resolve();
    }
  };
  for await (const _ of tarFile(watched())) break;
  await ended.promise;
});

test("the text of a sample: what the task made, or the one text that it was asked about", () => {
  const record = { id: "1", image: "s3://b/1" };
  const textOf = (task: JobTaskSpec, row: Partial<ResultRow>, texts?: string[]) =>
    samplesOf(task, { key: "1", record: { ...record, ...(texts && { texts }) }, row: { ...record, ...row } })[0]!.text;
  const vqa: JobTaskSpec = { ...caption, name: "vqa", questions: { column: "q" }, template: null, answers: null };
  const two = [
    { question: "a?", answer: "yes", score: 0 },
    { question: "b?", answer: "no", score: 0 },
  ];
  expect(textOf(caption, { caption: "a dog", score: 0 })).toBe("a dog");
  expect(textOf(vqa, { answer: "yes", score: 0 }, ["a?"])).toBe("yes");
  expect(textOf(vqa, { answers: two }, ["a?", "b?"])).toBe("yes\nno");
  expect(textOf({ name: "itm", texts: { given: ["a cat"] } }, { itm: 0.5 })).toBe("a cat");
  expect(textOf({ name: "itc", texts: { column: "alt" } }, { itc: 0.5 }, ["own"])).toBe("own");
  expect(textOf({ name: "itc", texts: { column: "alt" } }, { scores: [0.5, 1] }, ["own", "other"])).toBeNull();
  expect(textOf({ name: "embed", texts: null }, { embedding: [1] })).toBeNull();
});

test("a cleaned dataset has a sample for each text that stays", () => {
  const task: JobTaskSpec = { name: "filter", texts: { column: "alt" }, threshold: 0.5 };
  const record = { id: "1", image: "s3://b/1" };
  const pairs: ResultRow["pairs"] = [
    { text: "a", origin: "web", itm: 0.9, kept: true },
    { text: "b", origin: "web", itm: 0.1, kept: false },
    { text: "c", origin: "synthetic", itm: 0.8, kept: true },
  ];
  const row = { ...record, kept: { alt: "a" }, pairs };
  expect(samplesOf(task, { key: "0000000000", record, row })).toEqual([
    { key: "0000000000_000", text: "a", json: { alt: "a", ...row, text: "a", origin: "web", itm: 0.9 } },
    { key: "0000000000_001", text: "c", json: { alt: "a", ...row, text: "c", origin: "synthetic", itm: 0.8 } },
  ]);
});

test.each(["jpg", "png", "webp", "gif", "tif", "avif"])("%s is known by its bytes", async (ending) => {
  const fixtures = "packages/worker/test/pixels/fixtures/images";
  const { default: sharp } = await import("sharp");
  const format = ending === "tif" ? "tiff" : (ending as "png");
  const bytes =
    ending === "avif"
      ? await readFile(`${fixtures}/plain.avif`)
      : await sharp(images[0]!).resize(8).toFormat(format).toBuffer();
  expect(imageEnding(bytes, "x")).toBe(ending);
  expect(() => imageEnding(bytes.subarray(2), "x")).toThrow(expect.objectContaining({ code: "IMAGE_UNREADABLE" }));
});

import { appendFile, mkdir, open, readdir, readlink, rename, rm, utimes, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { type Checkpoint, CheckpointReader, findTensor, openCheckpoint } from "../../src/blip/checkpoint/index.ts";
import { archive, stateDict, view, zip } from "./archives.ts";
import { Folder, safetensors } from "./checkpoints.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const BIN = "pytorch_model.bin";
const BIN_INDEX = "pytorch_model.bin.index.json";

const bytes = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
/** Tensors of one number each. */
const ofNumbers = (numbers: Record<string, number>) =>
  safetensors(
    Object.fromEntries(
      Object.entries(numbers).map(([name, value]) => [name, { dtype: "F32", shape: [1], bytes: bytes(value) }]),
    ),
  );
const binOfNumber = (name: string, value: number) =>
  zip(archive(stateDict({ [name]: view({ shape: [1] }) }), { "0": bytes(value) }));

type Files = Record<string, string | Uint8Array | object>;

async function folderOf(files: Files): Promise<Folder> {
  const folder = await Folder.make();
  for (const [name, content] of Object.entries(files)) {
    const plain = typeof content === "string" || content instanceof Uint8Array;
    await writeFile(folder.at(name), plain ? content : JSON.stringify(content));
  }
  return folder;
}

async function numbersOf(checkpoint: Checkpoint): Promise<Record<string, number>> {
  await using reader = new CheckpointReader(checkpoint);
  const numbers: Record<string, number> = {};
  for (const name of checkpoint.tensors.keys()) {
    for await (const floats of reader.floats(findTensor(checkpoint, name, [1]))) numbers[name] = floats[0]!;
  }
  return numbers;
}

async function read(files: Files): Promise<Record<string, number>> {
  await using folder = await folderOf(files);
  return await numbersOf(await openCheckpoint(folder.path));
}

const index = (weight_map: unknown) => ({ metadata: { total_size: 8 }, weight_map });

test("of several forms of the same weights, transformers' first is read", async () => {
  const files: Files = {
    [SINGLE]: ofNumbers({ w: 1 }),
    [INDEX]: index({ w: "one.safetensors" }),
    "one.safetensors": ofNumbers({ w: 2 }),
    [BIN]: binOfNumber("w", 3),
    [BIN_INDEX]: index({ w: "one.bin" }),
    "one.bin": binOfNumber("w", 4),
  };
  const found: number[] = [];
  for (const first of [SINGLE, INDEX, BIN, BIN_INDEX]) {
    found.push((await read(files)).w!);
    delete files[first];
  }
  expect(found).toEqual([1, 2, 3, 4]);
});

test("a folder without weights is MODEL_INVALID, and the message names the four forms", async () => {
  await using folder = await folderOf({ "weights.safetensors": ofNumbers({ w: 1 }) });
  const error = (await openCheckpoint(folder.path).catch((thrown: unknown) => thrown)) as Error;
  expect(error).toMatchObject({ code: "MODEL_INVALID" });
  for (const name of [folder.path, SINGLE, INDEX, BIN, BIN_INDEX]) expect(error.message).toContain(name);
});

test("shards are read in any order, as often as tensors ask for another one", async () => {
  const numbers = await read({
    [INDEX]: index({ a: "one.safetensors", b: "two.safetensors", c: "one.safetensors" }),
    "one.safetensors": ofNumbers({ a: 1, c: 3 }),
    "two.safetensors": ofNumbers({ b: 2, "not in the index": 4 }),
  });
  expect(numbers).toEqual({ a: 1, b: 2, c: 3, "not in the index": 4 });
});

test.each<[string, Files, RegExp]>([
  [
    "a shard that is not there",
    { [INDEX]: index({ w: "one.safetensors" }) },
    /one\.safetensors is missing; .*index\.json names it/,
  ],
  [
    "a tensor that its shard has not",
    { [INDEX]: index({ w: "a", x: "b" }), a: ofNumbers({ w: 1 }), b: ofNumbers({ y: 1 }) },
    /index\.json says that tensor x is in .*b, which has no such tensor/,
  ],
  [
    "a tensor that another shard has",
    { [INDEX]: index({ w: "a", x: "b", y: "a" }), a: ofNumbers({ w: 1 }), b: ofNumbers({ x: 1, y: 1 }) },
    /index\.json says that tensor y is in .*a, which has no such tensor/,
  ],
  [
    "a tensor that two shards have",
    { [INDEX]: index({ w: "a", x: "b" }), a: ofNumbers({ w: 1 }), b: ofNumbers({ x: 1, w: 1 }) },
    /b has tensor w, which .*a has as well/,
  ],
  [
    "a way out of the folder",
    { [INDEX]: index({ w: "../w" }) },
    /index\.json: weight_map: is not an object that gives each tensor the name of a file/,
  ],
  ["an absolute path", { [INDEX]: index({ w: "/etc/passwd" }) }, /weight_map: is not/],
  ["the folder above", { [INDEX]: index({ w: ".." }) }, /weight_map: is not/],
  ["a path of another system", { [INDEX]: index({ w: "..\\w" }) }, /weight_map: is not/],
  ["a name with a zero byte", { [INDEX]: index({ w: "a\0" }) }, /weight_map: is not/],
  ["a number as a name", { [INDEX]: index({ w: 1 }) }, /weight_map: is not/],
  ["no map", { [INDEX]: {} }, /weight_map: is not/],
  ["no JSON", { [BIN_INDEX]: "{" }, /pytorch_model\.bin\.index\.json is not JSON/],
  [
    "megabytes",
    { [INDEX]: " ".repeat((8 << 20) + 1) },
    /index\.json can't be read: it has 8388609 bytes, at most 8388608/,
  ],
])("an index with %s is MODEL_INVALID", async (_, files, message) => {
  await using folder = await folderOf(files);
  const invalid = { code: "MODEL_INVALID", message: expect.stringMatching(message) };
  await expect(openCheckpoint(folder.path)).rejects.toMatchObject(invalid);
});

test("Git LFS's placeholder is MODEL_INVALID, and the message says how to get the weights", async () => {
  const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 990000000\n";
  for (const name of [SINGLE, BIN]) {
    await using folder = await folderOf({ [name]: pointer });
    const invalid = { code: "MODEL_INVALID", message: expect.stringMatching(`${name}.*git lfs pull`) };
    await expect(openCheckpoint(folder.path)).rejects.toMatchObject(invalid);
  }
});

test("a folder in the place of a file is MODEL_INVALID", async () => {
  await using folder = await Folder.make();
  await mkdir(folder.at(SINGLE));
  const invalid = { code: "MODEL_INVALID", message: expect.stringMatching(`${SINGLE} is not a file`) };
  await expect(openCheckpoint(folder.path)).rejects.toMatchObject(invalid);
});

test("names are transformers'", async () => {
  const numbers = await read({
    [SINGLE]: ofNumbers({
      "text_decoder.bert.embeddings.LayerNorm.gamma": 1,
      "text_decoder.bert.embeddings.LayerNorm.beta": 2,
      "blip.vision_model.post_layernorm.weight": 3,
      "text_decoder.cls.predictions.bias": 4,
    }),
  });
  expect(numbers).toEqual({
    "text_decoder.bert.embeddings.LayerNorm.weight": 1,
    "text_decoder.bert.embeddings.LayerNorm.bias": 2,
    "vision_model.post_layernorm.weight": 3,
    "text_decoder.cls.predictions.bias": 4,
  });
});

test("an index may use the old names as well", async () => {
  const numbers = await read({ [INDEX]: index({ "LayerNorm.gamma": "a" }), a: ofNumbers({ "LayerNorm.gamma": 1 }) });
  expect(numbers).toEqual({ "LayerNorm.weight": 1 });
});

test("a tensor under its old and its new name is MODEL_INVALID", async () => {
  await using folder = await folderOf({ [SINGLE]: ofNumbers({ "LayerNorm.gamma": 1, "LayerNorm.weight": 2 }) });
  const invalid = {
    code: "MODEL_INVALID",
    message: expect.stringMatching("LayerNorm.weight, which .* as LayerNorm.gamma"),
  };
  await expect(openCheckpoint(folder.path)).rejects.toMatchObject(invalid);
});

const YESTERDAY = new Date(Date.now() - 24 * 3_600_000);
test.each<[string, (file: string) => Promise<unknown>, RegExp]>([
  [
    "has become longer",
    (file) => appendFile(file, "more"),
    /has changed while it was being read \(\d+ bytes then, \d+ now\)/,
  ],
  ["has become shorter", (file) => writeFile(file, ""), /has changed while it was being read/],
  [
    "was written to",
    (file) => utimes(file, YESTERDAY, YESTERDAY),
    /has changed while it was being read \(its \d+ bytes\)/,
  ],
  ["is gone", (file) => rm(file), /is gone/],
])("a file that %s since its header was read is MODEL_INVALID", async (_, change, message) => {
  await using folder = await folderOf({
    [INDEX]: index({ a: "one", b: "two" }),
    one: ofNumbers({ a: 1 }),
    two: ofNumbers({ b: 2 }),
  });
  const checkpoint = await openCheckpoint(folder.path);
  await change(folder.at("two"));
  const invalid = { code: "MODEL_INVALID", message: expect.stringMatching(message) };
  await expect(numbersOf(checkpoint)).rejects.toMatchObject(invalid);
  await expect(numbersOf(checkpoint)).rejects.toThrow(folder.at("two"));
});

test("a file that is written to between two reads of a tensor is MODEL_INVALID", async () => {
  const length = 3 << 20;
  await using folder = await folderOf({
    [SINGLE]: safetensors({ w: { dtype: "F32", shape: [length], bytes: new Uint8Array(4 * length) } }),
  });
  const checkpoint = await openCheckpoint(folder.path);
  await using reader = new CheckpointReader(checkpoint);
  const floats = reader.floats(findTensor(checkpoint, "w", [length]));
  expect((await floats.next()).value).toHaveLength(1 << 20);
  await using file = await open(folder.at(SINGLE), "r+");
  await file.write(bytes(1), 0, 4, 1000);
  await utimes(folder.at(SINGLE), YESTERDAY, YESTERDAY);
  await expect(floats.next()).rejects.toMatchObject({
    code: "MODEL_INVALID",
    message: expect.stringMatching("has changed"),
  });
});

test("a file that is replaced while it is open is read to its end", async () => {
  await using folder = await folderOf({ [SINGLE]: ofNumbers({ a: 1, b: 2 }), other: ofNumbers({ a: 3, b: 4 }) });
  const checkpoint = await openCheckpoint(folder.path);
  await using reader = new CheckpointReader(checkpoint);
  const first = async (name: string) => (await reader.floats(findTensor(checkpoint, name, [1])).next()).value?.[0];
  expect(await first("a")).toBe(1);
  await rename(folder.at("other"), folder.at(SINGLE));
  expect(await first("b")).toBe(2);
});

test("however many shards there are, one is open", async () => {
  const names = Array.from({ length: 40 }, (_, i) => `t${i}`);
  await using folder = await folderOf({
    [INDEX]: index(Object.fromEntries(names.map((name) => [name, `${name}.shard`]))),
    ...Object.fromEntries(names.map((name, i) => [`${name}.shard`, ofNumbers({ [name]: i })])),
  });
  const checkpoint = await openCheckpoint(folder.path);
  const before = await openFiles(folder.path);
  const most: number[] = [];
  {
    await using reader = new CheckpointReader(checkpoint);
    for (const name of names) {
      for await (const _ of reader.floats(findTensor(checkpoint, name, [1]))) most.push(await openFiles(folder.path));
    }
  }
  expect([before, Math.max(...most), await openFiles(folder.path)]).toEqual([0, 1, 0]);
});

/** How many files of the folder this process has open (Linux). */
async function openFiles(folder: string): Promise<number> {
  const links = (await readdir("/proc/self/fd")).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ""));
  return (await Promise.all(links)).filter((link) => link.startsWith(folder)).length;
}

test("a tensor that is missing or misshapen is MODEL_INVALID, with what was expected", async () => {
  await using folder = await folderOf({ [SINGLE]: ofNumbers({ a: 1 }) });
  const checkpoint = await openCheckpoint(folder.path);
  expect(() => findTensor(checkpoint, "b", [1])).toThrow(`${folder.path} has no tensor b; expected one of shape [1]`);
  expect(() => findTensor(checkpoint, "a", [1, 1])).toThrow("has tensor a of shape [1], expected shape [1, 1]");
});

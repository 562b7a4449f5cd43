import { copyFile, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { CheckpointReader, findTensor, openCheckpoint } from "../../src/blip/checkpoint/index.ts";
import {
  archive,
  global,
  pickled,
  stateDict,
  type TestView,
  text,
  tuple,
  u64,
  view,
  type ZipEntry,
  zip,
} from "./archives.ts";
import { Folder } from "./checkpoints.ts";

const FIXTURES = fileURLToPath(new URL("fixtures/", import.meta.url));
const FILE = "pytorch_model.bin";

interface Expected {
  name: string;
  shape: number[];
  /** Its numbers do not follow one another in the file. */
  strided: boolean;
  /** Of the numbers as float32. */
  bits: number[];
}
const expected = (await readFile(`${FIXTURES}expected.jsonl`, "utf8"))
  .trimEnd()
  .split("\n")
  .map((line) => JSON.parse(line) as Expected);

async function bitsOf(folder: string, { name, shape }: Pick<Expected, "name" | "shape">): Promise<number[]> {
  const checkpoint = await openCheckpoint(folder);
  await using reader = new CheckpointReader(checkpoint);
  const bits: number[] = [];
  for await (const floats of reader.floats(findTensor(checkpoint, name, shape))) {
    bits.push(...new Uint32Array(floats.buffer, floats.byteOffset, floats.length));
  }
  return bits;
}

const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const bits = (...values: number[]) => Array.from(new Uint32Array(Float32Array.from(values).buffer));

async function withFile(content: Uint8Array): Promise<Folder> {
  const folder = await Folder.make();
  await writeFile(folder.at(FILE), content);
  return folder;
}

const folders = ["torch", "torch-protocol-4", "safetensors", "safetensors-sharded"];
test.each(folders.flatMap((folder) => expected.map((tensor) => [folder, tensor.name, tensor] as const)))(
  "%s: %s has the numbers that it has in Python",
  async (folder, name, tensor) => {
    const read = bitsOf(FIXTURES + folder, tensor);
    if (!tensor.strided || !folder.startsWith("torch")) {
      expect(await read).toEqual(tensor.bits);
      return;
    }
    const message = expect.stringMatching(
      `${FILE} has tensor ${name} with strides .*save it again after .contiguous()`,
    );
    await expect(read).rejects.toMatchObject({ code: "MODEL_UNSUPPORTED", message });
  },
);

test("buffers that are no floats are known, and in nobody's way", async () => {
  const { tensors } = await openCheckpoint(`${FIXTURES}torch`);
  const dtypes = ["position_ids", "flags", "doubles"].map((name) => tensors.get(name)?.dtype);
  expect(dtypes).toEqual(["I64", "BOOL", "F64"]);
  const invalid = { code: "MODEL_INVALID", message: expect.stringContaining("in I64, expected F32, F16, BF16") };
  await expect(bitsOf(`${FIXTURES}torch`, { name: "position_ids", shape: [1, 6] })).rejects.toMatchObject(invalid);
});

test("torch before 1.6 is refused with the command that converts it", async () => {
  const message = expect.stringMatching(/torch before 1\.6.*python -c "import torch.*torch\.save/);
  await expect(openCheckpoint(`${FIXTURES}torch-legacy`)).rejects.toMatchObject({ code: "MODEL_UNSUPPORTED", message });
});

test.each([
  ["torch-evil", "MODEL_INVALID", /asks for posix\.system/],
  ["training-checkpoint", "MODEL_INVALID", /has a dict as state_dict where a tensor is expected/],
  ["torchscript", "MODEL_UNSUPPORTED", /linear\.py compressed/],
])("%s is refused", async (folder, code, message) => {
  const error = await openCheckpoint(FIXTURES + folder).catch((thrown: Error) => thrown);
  expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
  expect((error as Error).message).toContain(`${FIXTURES}${folder}/${FILE}`);
});

const STORAGES = { "0": floats(1, 2, 3, 4), "1": floats(5, 6) };
const sound = (views: Record<string, TestView> = { weight: {} }, more: ZipEntry[] = []) =>
  archive(stateDict(Object.fromEntries(Object.entries(views).map(([name, v]) => [name, view(v)]))), STORAGES, more);

test.each<[string, Uint8Array]>([
  ["an archive of 64 bits", zip(sound(), { zip64: true })],
  [
    "any name for the archive",
    zip(sound().map((entry) => ({ ...entry, name: entry.name.replace("archive", "x y-ñ") }))),
  ],
  ["no folder in the archive", zip(sound().map((entry) => ({ ...entry, name: entry.name.replace("archive/", "") })))],
  [
    "the byte order of the machine that saved it",
    zip(sound(undefined, [{ name: "archive/byteorder", data: Buffer.from("little") }])),
  ],
])("%s is read", async (_, content) => {
  await using folder = await withFile(content);
  expect(await bitsOf(folder.path, { name: "weight", shape: [2] })).toEqual(bits(1, 2));
});

test("tensors that share a storage begin where they say", async () => {
  await using folder = await withFile(
    zip(sound({ a: { offset: 1, shape: [3] }, b: { key: "1" }, c: { shape: [2, 2], strides: [2, 1] } })),
  );
  expect(await bitsOf(folder.path, { name: "a", shape: [3] })).toEqual(bits(2, 3, 4));
  expect(await bitsOf(folder.path, { name: "b", shape: [2] })).toEqual(bits(5, 6));
  expect(await bitsOf(folder.path, { name: "c", shape: [2, 2] })).toEqual(bits(1, 2, 3, 4));
});

const MAX = 2 ** 31 - 1;
test.each<[string, Record<string, TestView>, RegExp]>([
  [
    "more numbers than its storage",
    { a: {}, w: { shape: [5] } },
    /tensor w of F32 shape \[5\] in a storage of 16 bytes, which needs 20/,
  ],
  [
    "an offset that leads out of its storage",
    { w: { offset: 3 } },
    /tensor w .* in a storage of 16 bytes, which needs 20/,
  ],
  ["strides that lead out of its storage", { w: { strides: [4] } }, /tensor w .* which needs 20/],
  ["a shape without end", { w: { shape: [MAX, MAX, MAX], strides: [1, 1, 1] } }, /tensor w .* which needs/],
  [
    "a shape beyond all numbers",
    { w: { shape: Array(40).fill(MAX), strides: Array(40).fill(MAX) } },
    /tensor w .* which needs/,
  ],
  [
    "a shape beyond all numbers that is empty",
    { w: { shape: [...Array(40).fill(MAX), 0], strides: Array(41).fill(1) } },
    /tensor w .* which needs NaN/,
  ],
  ["a storage that is not there", { w: { key: "7" } }, /has no storage 7, which tensor w needs/],
  ["a storage outside of the archive", { w: { key: "../data.pkl/../0" } }, /has no storage \.\.\/data/],
  ["a negative size", { w: { shape: [-2] } }, /storage, offset, shape or strides are malformed/],
  ["a negative offset", { w: { offset: -1 } }, /malformed/],
  ["a negative stride", { w: { strides: [-1] } }, /malformed/],
  ["a stride too few", { w: { shape: [1, 2] } }, /malformed/],
  ["more axes than anyone has", { w: { shape: Array(65).fill(1), strides: Array(65).fill(1) } }, /malformed/],
  ["a kind of storage that is none", { w: { kind: "load" } }, /asks for torch\.load/],
])("a tensor with %s is MODEL_INVALID", async (_, views, message) => {
  await using folder = await withFile(zip(sound(views)));
  const invalid = { code: "MODEL_INVALID", message: expect.stringMatching(message) };
  await expect(openCheckpoint(folder.path)).rejects.toMatchObject(invalid);
});

const rebuild = global("torch._utils", "_rebuild_tensor_v2");
test.each<[string, Buffer, RegExp]>([
  ["is no dict", pickled("](N)e."), /does not hold a state_dict/],
  ["is a tensor alone", pickled(view(), "."), /does not hold a state_dict/],
  ["names a tensor with a number", pickled("}K\x01", view(), "s."), /whose name is no text/],
  ["makes a tensor of nothing", pickled("}", text("w"), rebuild, ")Rs."), /malformed/],
  [
    "makes a tensor of numbers",
    pickled("}", text("w"), rebuild, tuple("K\x00", "K\x00", ")", ")"), "Rs."),
    /malformed/,
  ],
  [
    "makes a parameter of a number",
    pickled(global("torch._utils", "_rebuild_parameter"), "K\x01\x85R."),
    /a parameter that is no tensor/,
  ],
  ["refers to something outside", pickled(tuple(text("module"), text("os")), "Q."), /refers to something outside/],
  [
    "refers to a storage of no kind",
    pickled(tuple(text("storage"), "N", text("0")), "Q."),
    /refers to something outside/,
  ],
  ["is cut off", stateDict({ w: view() }).subarray(0, -5), /damaged pickle, which ends too early/],
  ["is of megabytes", Buffer.alloc((2 << 20) + 1, "N"), /data\.pkl of 2097153 bytes, at most 2097152/],
])("a pickle that %s is MODEL_INVALID", async (_, pickle, message) => {
  await using folder = await withFile(zip(archive(pickle, STORAGES)));
  const invalid = { code: "MODEL_INVALID", message: expect.stringMatching(message) };
  await expect(openCheckpoint(folder.path)).rejects.toMatchObject(invalid);
});

/** The file with 8 bytes changed `before` bytes before its end. */
function poke(content: Buffer, before: number, value: bigint): Buffer {
  u64(value).copy(content, content.length - before);
  return content;
}
const [END, LOCATOR, END64] = [22, 20, 56];

test.each<[string, string, Uint8Array, RegExp]>([
  ["empty", "INVALID", Buffer.alloc(0), /is no zip archive/],
  ["no archive", "INVALID", Buffer.from("weights"), /is no zip archive/],
  ["an archive's beginning", "INVALID", zip(sound()).subarray(0, 500), /damaged zip archive, or is cut off/],
  ["an archive without its last byte", "INVALID", zip(sound()).subarray(0, -1), /damaged zip archive, or is cut off/],
  ["an archive of other things", "INVALID", zip([{ name: "readme", data: floats(1) }]), /has no data\.pkl/],
  [
    "an archive whose storage is longer than the file",
    "INVALID",
    zip([...sound(), { name: "archive/data/9", data: floats(1), claims: 1e9 }]),
    /damaged zip archive.*overflows/,
  ],
  [
    "an archive with a file twice",
    "INVALID",
    zip([...sound(), { name: "archive/data/0", data: floats(9) }]),
    /two files archive\/data\/0/,
  ],
  [
    "an archive whose directory is nowhere",
    "INVALID",
    poke(zip(sound(), { zip64: true }), END + LOCATOR + 8, 2n ** 64n - 1n),
    /refers to byte 18446744073709552000/,
  ],
  [
    "an archive whose end is nowhere",
    "INVALID",
    poke(zip(sound(), { zip64: true }), END + LOCATOR - 8, 2n ** 63n),
    /refers to byte 9223372036854776000/,
  ],
  [
    "an archive of endless files",
    "INVALID",
    poke(zip(sound(), { zip64: true }), END + LOCATOR + END64 - 32, 2n ** 50n),
    /1125899906842624 files, at most/,
  ],
  [
    "an archive with a file name of kilobytes",
    "INVALID",
    zip([{ name: "x".repeat(2000), data: floats(1) }]),
    /a file name of 2000 bytes/,
  ],
  [
    "compressed",
    "UNSUPPORTED",
    zip(sound().map((entry) => ({ ...entry, method: 8 }))),
    /data\.pkl compressed or encrypted/,
  ],
  [
    "encrypted",
    "UNSUPPORTED",
    zip(sound().map((entry) => ({ ...entry, flags: entry.name.endsWith(".pkl") ? 1 : 0 }))),
    /data\.pkl compressed or encrypted/,
  ],
  [
    "big-endian",
    "UNSUPPORTED",
    zip(sound(undefined, [{ name: "archive/byteorder", data: Buffer.from("big") }])),
    /big-endian/,
  ],
])("a file that is %s is MODEL_%s", async (_, code, content, message) => {
  await using folder = await withFile(content);
  const error = await openCheckpoint(folder.path).catch((thrown: Error) => thrown);
  expect(error).toMatchObject({ code: `MODEL_${code}`, message: expect.stringMatching(message) });
  expect((error as Error).message).toContain(folder.at(FILE));
});

test("a damaged file is never anything but an error of ours, or read", async () => {
  await using folder = await Folder.make();
  const original = await readFile(`${FIXTURES}torch/${FILE}`);
  await copyFile(`${FIXTURES}torch/${FILE}`, folder.at(FILE));
  let seed = 7;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed % below;
  };
  const codes = new Set<string>();
  for (let i = 0; i < 500; i++) {
    const bytes = Buffer.from(original);
    for (let n = random(8); n >= 0; n--) bytes[random(bytes.length)] = random(256);
    await writeFile(folder.at(FILE), i % 5 === 0 ? bytes.subarray(0, random(bytes.length)) : bytes);
    const outcome = await openCheckpoint(folder.path).catch((thrown: unknown) => thrown);
    codes.add((outcome as { code?: string }).code ?? (outcome instanceof Error ? String(outcome) : "read"));
  }
  expect([...codes].sort()).toEqual(["MODEL_INVALID", "MODEL_UNSUPPORTED", "read"]);
});

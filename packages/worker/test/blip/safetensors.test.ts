import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { CheckpointReader, findTensor, openCheckpoint } from "../../src/blip/checkpoint/index.ts";
import { Folder, headerLength, safetensors, type TestTensor } from "./checkpoints.ts";

async function floatsOf(tensor: TestTensor): Promise<number[]> {
  await using folder = await Folder.make();
  await writeFile(folder.at("model.safetensors"), safetensors({ before: bytes("F32", [1], [0, 0, 0, 0]), tensor }));
  const checkpoint = await openCheckpoint(folder.path);
  await using reader = new CheckpointReader(checkpoint);
  const parts: number[][] = [];
  for await (const part of reader.floats(findTensor(checkpoint, "tensor", tensor.shape))) parts.push(Array.from(part));
  return parts.flat();
}

const bytes = (dtype: string, shape: number[], content: ArrayLike<number>): TestTensor => ({
  dtype,
  shape,
  bytes: Uint8Array.from(content),
});
const halves = (dtype: string, bits: number[]): TestTensor => ({
  dtype,
  shape: [bits.length],
  bytes: new Uint8Array(Uint16Array.from(bits).buffer),
});

test("float32 comes as it is", async () => {
  const values = [0, -0, 1.5, -3.4028234663852886e38, 1.401298464324817e-45, Number.POSITIVE_INFINITY];
  const stored = { dtype: "F32", shape: [2, 3], bytes: new Uint8Array(Float32Array.from(values).buffer) };
  expect(await floatsOf(stored)).toEqual(values);
});

test("float16 becomes the same number: normal, subnormal, zeros, infinities, NaN", async () => {
  const bits = [0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x0400, 0x0000, 0x8000, 0x7c00, 0xfc00, 0x7e00];
  const values = [1, -2, 65504, 2 ** -24, 1023 * 2 ** -24, 2 ** -14, 0, -0, Number.POSITIVE_INFINITY];
  expect(await floatsOf(halves("F16", bits))).toEqual([...values, Number.NEGATIVE_INFINITY, Number.NaN]);
});

test("bfloat16 becomes the same number", async () => {
  const bits = [0x3f80, 0xc000, 0x4049, 0x0001, 0x8000, 0x7f80, 0x7fc0];
  const values = [1, -2, 3.140625, 2 ** -133, -0, Number.POSITIVE_INFINITY, Number.NaN];
  expect(await floatsOf(halves("BF16", bits))).toEqual(values);
});

test("a tensor larger than what is read at a time keeps its order", async () => {
  const length = (1 << 21) + 3; // 4 MB of float16 and a little
  const numbers = Array.from({ length }, (_, i) => (i % 2048 === 2047 ? 0x3c00 : 0));
  const floats = await floatsOf(halves("F16", numbers));
  expect(floats.length).toBe(length);
  expect(floats.findIndex((value, i) => value !== (i % 2048 === 2047 ? 1 : 0))).toBe(-1);
});

const f32 = (begin: number, end: number, shape = [2]) => ({ dtype: "F32", shape, data_offsets: [begin, end] });
const file = (header: unknown, data = 8) => {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  return Buffer.concat([headerLength(json.length), json, Buffer.alloc(data)]);
};
function notUtf8(): Buffer {
  const content = file({ "?": f32(0, 8) });
  content[content.indexOf("?")] = 0xff;
  return content;
}
const HUGE = 2 ** 53 - 1;

test.each<[string, Uint8Array, RegExp]>([
  ["an empty file", Buffer.alloc(0), /has 0 bytes, too few for a header/],
  [
    "a header longer than the file",
    Buffer.concat([headerLength(100), Buffer.from("{}")]),
    /100 bytes, but at most 2 are/,
  ],
  [
    "a header of absurd length",
    Buffer.concat([headerLength(2n ** 64n - 1n), Buffer.alloc(9)]),
    /18446744073709551615 bytes/,
  ],
  ["a header of megabytes", file(" ".repeat((4 << 20) + 1)), /4194305 bytes, but at most 4194304 are/],
  ["a header that is not JSON", file('{"a": '), /header that is not a JSON object/],
  ["a header that is not UTF-8", notUtf8(), /not a JSON object/],
  ["a header that is a list", file([]), /header that is not a JSON object/],
  ["a header that is null", file("null"), /header that is not a JSON object/],
  ["an entry that is null", file({ a: null }), /malformed entry for tensor a/],
  ["an entry without offsets", file({ a: { dtype: "F32", shape: [2] } }), /malformed entry for tensor a/],
  ["an entry with one offset", file({ a: { ...f32(0, 8), data_offsets: [0] } }), /malformed entry for tensor a/],
  ["an entry with a negative offset", file({ a: f32(-8, 8) }), /malformed entry for tensor a/],
  ["an entry with a negative size", file({ a: f32(0, 8, [-2]) }), /malformed entry for tensor a/],
  ["an entry with half a size", file({ a: f32(0, 8, [0.5]) }), /malformed entry for tensor a/],
  [
    "an entry with more axes than anyone has",
    file({ a: f32(0, 4, Array(65).fill(1)) }, 4),
    /malformed entry for tensor a/,
  ],
  [
    "data that is cut off",
    file({ whole: f32(0, 8), a: f32(8, 16) }, 12),
    /is cut off: tensor a ends at byte \d+, the file at/,
  ],
  ["an offset beyond all files", file({ a: f32(0, HUGE) }), /is cut off: tensor a ends at byte \d+, the file at/],
  [
    "offsets that do not fit the shape",
    file({ a: f32(0, 8, [3]) }),
    /gives tensor a 8 bytes, expected 12 for F32 shape \[3\]/,
  ],
  [
    "offsets that do not fit the numbers",
    file({ a: { ...f32(0, 8), dtype: "I64" } }),
    /8 bytes, expected 16 for I64 shape \[2\]/,
  ],
  ["a shape without end", file({ a: f32(0, 8, [HUGE, HUGE]) }), /gives tensor a 8 bytes, expected \d/],
  [
    "a shape beyond all numbers",
    file({ a: f32(0, 0, [...Array(30).fill(HUGE), 0]) }, 0),
    /gives tensor a 0 bytes, expected NaN/,
  ],
  ["offsets in the wrong order", file({ a: f32(8, 0) }), /has tensor a end at byte \d+, before it begins at/],
  ["tensors that overlap", file({ a: f32(0, 8), b: f32(4, 12) }, 12), /has tensor b overlap another one/],
  ["two tensors in one place", file({ a: f32(0, 8), b: f32(0, 8) }), /has tensor b overlap another one/],
  ["a hole", file({ a: f32(0, 8), b: f32(12, 20) }, 20), /has 4 bytes before tensor b that are no tensor's/],
  ["a hole at the beginning", file({ a: f32(4, 12) }, 12), /has 4 bytes before tensor a that are no tensor's/],
  ["more at the end", file({ a: f32(0, 8) }, 12), /has 4 bytes at its end that are no tensor's/],
  [
    "the same name twice",
    file(`{"a": ${JSON.stringify(f32(0, 8))}, "a": ${JSON.stringify(f32(8, 16))}}`, 16),
    /has 8 bytes before tensor a that are no tensor's/,
  ],
])("%s is MODEL_INVALID, with the file's name", async (_, content, message) => {
  await using folder = await Folder.make();
  const path = folder.at("model.safetensors");
  await writeFile(path, content);
  const error = await openCheckpoint(folder.path).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "MODEL_INVALID", message: expect.stringMatching(message) });
  expect((error as Error).message).toContain(path);
});

test("names that mean something to JavaScript are names, and kinds that are not known do not matter", async () => {
  await using folder = await Folder.make();
  const header = `{"__proto__": ${JSON.stringify(f32(0, 8))}, "x": {"dtype": "toString", "shape": [3], "data_offsets": [8, 9]}}`;
  await writeFile(folder.at("model.safetensors"), file(header, 9));
  const { tensors } = await openCheckpoint(folder.path);
  expect([...tensors.keys()]).toEqual(["__proto__", "x"]);
});

test("empty tensors take no place", async () => {
  await using folder = await Folder.make();
  await writeFile(folder.at("model.safetensors"), file({ b: f32(0, 8), a: f32(0, 0, [0, 3]), c: f32(8, 8, [0]) }));
  const { tensors } = await openCheckpoint(folder.path);
  expect([...tensors.keys()].sort()).toEqual(["a", "b", "c"]);
});

/**
 * Reads safetensors files (https://github.com/huggingface/safetensors#format): 8 bytes with the header's length, a JSON
 * header, then the tensors' bytes. All numbers are little-endian.
 */
import type { FileHandle } from "node:fs/promises";
import { readFully } from "./file.ts";
import { bytesOf, elements, invalid, isShape, type StoredTensor, shapeText } from "./tensor.ts";

/** Bytes. The format allows 100 MB, but a model of 1,000 tensors has 0.2 MB, and JSON takes up to 50 times its size. */
const MAX_HEADER = 4 << 20;
const PREFIX = 8;

/** The tensors of one file of `size` bytes. Throws MODEL_INVALID, naming the file, the tensor and what is wrong. */
export async function readSafetensors(handle: FileHandle, path: string, size: number): Promise<StoredTensor[]> {
  const { header, dataAt } = await readHeader(handle, path, size);
  const tensors = Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, entry]) => storedTensor(name, entry, path, dataAt, size))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  // The format wants every byte to belong to one tensor: this also finds two entries of the same name.
  let end = dataAt;
  for (const tensor of tensors) {
    if (tensor.begin < end) invalid(path, `has tensor ${tensor.name} overlap another one, before byte ${end}`);
    if (tensor.begin > end)
      invalid(path, `has ${tensor.begin - end} bytes before tensor ${tensor.name} that are no tensor's`);
    end = tensor.end;
  }
  if (end < size) invalid(path, `has ${size - end} bytes at its end that are no tensor's`);
  return tensors;
}

async function readHeader(handle: FileHandle, path: string, size: number) {
  const prefix = new Uint8Array(PREFIX);
  if (size < PREFIX) invalid(path, `has ${size} bytes, too few for a header`);
  await readFully(handle, path, prefix, 0);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  const room = Math.min(size - PREFIX, MAX_HEADER);
  if (length > room) invalid(path, `says that its header has ${length} bytes, but at most ${room} are possible`);
  const text = new Uint8Array(Number(length));
  await readFully(handle, path, text, PREFIX);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
  } catch (cause) {
    return invalid(path, "has a header that is not a JSON object", cause);
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    return invalid(path, "has a header that is not a JSON object");
  }
  return { header, dataAt: PREFIX + text.length };
}

function storedTensor(name: string, entry: unknown, path: string, dataAt: number, size: number): StoredTensor {
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
  if (typeof dtype !== "string" || !isShape(shape) || !isShape(offsets) || offsets.length !== 2) {
    return invalid(path, `has a header with a malformed entry for tensor ${name}`);
  }
  const [begin, end] = offsets.map((offset) => dataAt + offset) as [number, number];
  if (end < begin) invalid(path, `has tensor ${name} end at byte ${end}, before it begins at ${begin}`);
  if (end > size) invalid(path, `is cut off: tensor ${name} ends at byte ${end}, the file at ${size}`);
  const bytes = bytesOf(dtype);
  const expected = bytes === undefined ? end - begin : bytes * elements(shape);
  if (end - begin !== expected) {
    invalid(path, `gives tensor ${name} ${end - begin} bytes, expected ${expected} for ${dtype} ${shapeText(shape)}`);
  }
  return { name, file: path, dtype, shape, begin, end };
}

/// <reference lib="esnext.float16" />
/**
 * Reads safetensors files (https://github.com/huggingface/safetensors#format): 8 bytes with the header's length, a JSON
 * header, then the tensors' bytes. All numbers are little-endian.
 */
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { CapfleetError } from "@capfleet/shared/contract";
import * as z from "zod";

const FILE = "model.safetensors";
/** The format's own limit. */
const MAX_HEADER = 100_000_000;
/** Bytes that are read at a time. */
const CHUNK = 1 << 22;

/** The formats of numbers that are read, with their bytes. A tensor in another one only matters where it is used. */
const FLOATS = { F32: 4, F16: 2, BF16: 2 };
type FloatFormat = keyof typeof FLOATS;

export interface StoredTensor {
  name: string;
  dtype: string;
  shape: readonly number[];
  /** Where its bytes are in the file: [begin, end). */
  begin: number;
  end: number;
}

export interface FloatTensor extends StoredTensor {
  dtype: FloatFormat;
}

export interface Checkpoint {
  /** Path of the file. */
  file: string;
  tensors: ReadonlyMap<string, StoredTensor>;
}

const count = z.number().int().min(0);
const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(count),
  data_offsets: z.tuple([count, count]),
});

/** Reads the header of the folder's model.safetensors. Throws MODEL_INVALID, naming the file and what is wrong. */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  const path = join(folder, FILE);
  const file = await open(path).catch((cause: NodeJS.ErrnoException) => {
    const why = cause.code === "ENOENT" ? "is missing; other formats are not read" : `can't be read: ${cause.message}`;
    throw new CapfleetError("MODEL_INVALID", `${path} ${why}`, { cause });
  });
  try {
    const { size } = await file.stat();
    const { header, dataAt } = await readHeader(file, path, size);
    const tensors = new Map<string, StoredTensor>();
    for (const [name, entry] of Object.entries(header)) {
      if (name !== "__metadata__") tensors.set(name, storedTensor(name, entry, path, dataAt, size));
    }
    return { file: path, tensors };
  } finally {
    await file.close();
  }
}

/** The tensor `name`, if it has that shape. Throws MODEL_INVALID, naming it and what was expected and found. */
export function findTensor({ file, tensors }: Checkpoint, name: string, shape: readonly number[]): FloatTensor {
  const tensor = tensors.get(name);
  if (!tensor) return invalid(file, `has no tensor ${name}; expected one of ${text(shape)}`);
  if (text(tensor.shape) !== text(shape)) {
    return invalid(file, `has tensor ${name} of ${text(tensor.shape)}, expected ${text(shape)}`);
  }
  if (isFloat(tensor)) return tensor;
  return invalid(file, `has tensor ${name} in ${tensor.dtype}, expected ${Object.keys(FLOATS).join(", ")}`);
}

/**
 * A tensor's numbers as float32, a few MB at a time; an array is valid until the next one is asked for. `file` is
 * `checkpoint.file`, opened. Throws MODEL_INVALID: the file has become shorter.
 */
export async function* readFloats(file: FileHandle, checkpoint: Checkpoint, tensor: FloatTensor) {
  const buffer = new Uint8Array(Math.min(CHUNK, tensor.end - tensor.begin));
  for (let at = tensor.begin; at < tensor.end; at += buffer.length) {
    const chunk = buffer.subarray(0, Math.min(buffer.length, tensor.end - at));
    await readFully(file, checkpoint.file, chunk, at);
    yield toFloats(chunk, tensor.dtype);
  }
}

async function readHeader(file: FileHandle, path: string, size: number) {
  const prefix = new Uint8Array(8);
  if (size < prefix.length) invalid(path, `has ${size} bytes, too few for a header`);
  await readFully(file, path, prefix, 0);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  const room = Math.min(size - prefix.length, MAX_HEADER);
  if (length > room) invalid(path, `says that its header has ${length} bytes, but at most ${room} are possible`);
  const text = new Uint8Array(Number(length));
  await readFully(file, path, text, prefix.length);
  try {
    const header = z.record(z.string(), z.unknown()).parse(JSON.parse(new TextDecoder().decode(text)));
    return { header, dataAt: prefix.length + text.length };
  } catch {
    return invalid(path, "has a header that is not a JSON object");
  }
}

function storedTensor(name: string, entry: unknown, path: string, dataAt: number, size: number): StoredTensor {
  const parsed = entrySchema.safeParse(entry);
  if (!parsed.success) return invalid(path, `has a header with a malformed entry for tensor ${name}`);
  const { dtype, shape, data_offsets } = parsed.data;
  const [begin, end] = data_offsets.map((offset) => dataAt + offset) as [number, number];
  if (end > size) invalid(path, `is cut off: tensor ${name} ends at byte ${end}, the file at ${size}`);
  const tensor: StoredTensor = { name, dtype, shape, begin, end };
  const expected = isFloat(tensor) ? FLOATS[tensor.dtype] * elements(shape) : end - begin;
  if (end - begin !== expected) {
    return invalid(path, `gives tensor ${name} ${end - begin} bytes, expected ${expected} for ${dtype} ${text(shape)}`);
  }
  return tensor;
}

const isFloat = (tensor: StoredTensor): tensor is FloatTensor => Object.hasOwn(FLOATS, tensor.dtype);
const text = (shape: readonly number[]) => `shape [${shape.join(", ")}]`;

export const elements = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

async function readFully(file: FileHandle, path: string, into: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await file.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) invalid(path, `ended at byte ${position + done} while it was being read`);
    done += bytesRead;
  }
}

function toFloats({ buffer, length }: Uint8Array<ArrayBuffer>, format: FloatFormat): Float32Array<ArrayBuffer> {
  if (format === "F32") return new Float32Array(buffer, 0, length / 4);
  if (format === "F16") return new Float32Array(new Float16Array(buffer, 0, length / 2));
  // A bfloat16 is a float32's upper half.
  const halves = new Uint16Array(buffer, 0, length / 2);
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16;
  return new Float32Array(bits.buffer);
}

function invalid(path: string, what: string): never {
  throw new CapfleetError("MODEL_INVALID", `${path} ${what}`);
}

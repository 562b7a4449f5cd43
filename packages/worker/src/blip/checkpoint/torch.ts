/**
 * Reads what `torch.save(state_dict)` writes since torch 1.6: a zip archive with `data.pkl`, the pickled dict, in which
 * a tensor is a view into a storage, and `data/<key>`, a storage's bytes (torch/serialization.py and torch/_utils.py).
 */
import type { FileHandle } from "node:fs/promises";
import { readFully } from "./file.ts";
import { type Allowed, type Global, PickleError, type PickleValue, unpickle } from "./pickle.ts";
import { bytesOf, elements, invalid, isCount, isShape, type StoredTensor, shapeText, unsupported } from "./tensor.ts";
import { readZip, type ZipRange } from "./zip.ts";

/** 10,000 tensors; a bound on memory, since one byte of a pickle can ask for an object. */
const MAX_PICKLE = 2 << 20;

/** Kinds of storages, with safetensors' names for the format of their numbers. */
const STORAGES: Record<string, string> = {
  "torch.FloatStorage": "F32",
  "torch.HalfStorage": "F16",
  "torch.BFloat16Storage": "BF16",
  "torch.DoubleStorage": "F64",
  "torch.LongStorage": "I64",
  "torch.IntStorage": "I32",
  "torch.ShortStorage": "I16",
  "torch.CharStorage": "I8",
  "torch.ByteStorage": "U8",
  "torch.BoolStorage": "BOOL",
};

/**
 * The tensors of one file of `size` bytes. Throws MODEL_INVALID, naming the file, the tensor and what is wrong, also
 * where the pickle asks for anything but tensors; MODEL_UNSUPPORTED: a form that torch.save does not write any more.
 */
export async function readTorchFile(handle: FileHandle, path: string, size: number): Promise<StoredTensor[]> {
  await checkFormat(handle, path, size);
  const ranges = await readZip(handle, path, size);
  const [pickleName] = [...ranges.keys()].filter((name) => /^([^/]+\/)?data\.pkl$/.test(name));
  if (pickleName === undefined) return invalid(path, "has no data.pkl in it; it is not a file of torch.save");
  const prefix = pickleName.slice(0, -"data.pkl".length);
  const read = async (name: string, most: number) => {
    const { begin, end } = ranges.get(name)!;
    if (end - begin > most) invalid(path, `has ${name} of ${end - begin} bytes, at most ${most} are read`);
    const bytes = new Uint8Array(end - begin);
    await readFully(handle, path, bytes, begin);
    return bytes;
  };
  const order = `${prefix}byteorder`;
  if (ranges.has(order) && new TextDecoder().decode(await read(order, 16)) === "big") {
    unsupported(path, "was saved on a big-endian machine, which is not read; save it again on a little-endian one");
  }
  const views = unpickleViews(await read(pickleName, MAX_PICKLE), path);
  return views.map(([name, view]) => storedTensor(name, view, path, ranges.get(`${prefix}data/${view.storage.key}`)));
}

const CONVERT = `python -c "import torch; f = 'pytorch_model.bin'; torch.save(torch.load(f, weights_only=True), f)"`;

async function checkFormat(handle: FileHandle, path: string, size: number): Promise<void> {
  const start = new Uint8Array(Math.min(4, size));
  await readFully(handle, path, start, 0);
  // A bare pickle begins with its protocol.
  if (start[0] === 0x80) {
    unsupported(path, `was saved in the format of torch before 1.6, which is not read; convert it: ${CONVERT}`);
  }
  if (new TextDecoder().decode(start) !== "PK\x03\x04") invalid(path, "is no zip archive, as files of torch.save are");
}

class Storage {
  readonly dtype: string;
  /** Of one number. */
  readonly bytes: number;
  readonly key: string;

  constructor(kind: string, key: string) {
    this.dtype = STORAGES[kind]!;
    this.bytes = bytesOf(this.dtype)!;
    this.key = key;
  }
}

/** A tensor: some of a storage's numbers. Offset and strides are in numbers. */
class View {
  readonly storage: Storage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];

  constructor(storage: Storage, offset: number, shape: readonly number[], strides: readonly number[]) {
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }
}

/** All that a state_dict's pickle may ask for. */
const GLOBALS: Global[] = [
  { name: "collections.OrderedDict", call: () => new Map() },
  { name: "torch._utils._rebuild_tensor_v2", call: rebuildTensor },
  { name: "torch._utils._rebuild_parameter", call: (tensor) => asView(tensor) },
  ...Object.keys(STORAGES).map((name) => ({ name })),
];

const ALLOWED: Allowed = {
  globals: new Map(GLOBALS.map((global) => [global.name, global])),
  /** ("storage", kind, key, location, numbers) */
  persistent(id) {
    const [tag, kind, key] = Array.isArray(id) ? (id as PickleValue[]) : [];
    const name = (kind as Partial<Global> | undefined)?.name;
    if (tag === "storage" && name !== undefined && Object.hasOwn(STORAGES, name) && typeof key === "string") {
      return new Storage(name, key);
    }
    throw new PickleError("refers to something outside of the pickle that is no storage: it is refused");
  },
};

function rebuildTensor(storage?: PickleValue, offset?: PickleValue, shape?: PickleValue, strides?: PickleValue): View {
  if (storage instanceof Storage && isCount(offset) && isShape(shape) && isShape(strides)) {
    if (shape.length === strides.length) return new View(storage, offset, shape, strides);
  }
  throw new PickleError("has a tensor whose storage, offset, shape or strides are malformed");
}

function asView(value: PickleValue | undefined): View {
  if (value instanceof View) return value;
  throw new PickleError("has a parameter that is no tensor");
}

function unpickleViews(pickle: Uint8Array, path: string): [string, View][] {
  let dict: PickleValue;
  try {
    dict = unpickle(pickle, ALLOWED);
  } catch (thrown) {
    if (!(thrown instanceof PickleError)) throw thrown;
    return invalid(path, thrown.message, thrown);
  }
  if (!(dict instanceof Map)) return invalid(path, "does not hold a state_dict: a dict of tensors by their names");
  return [...dict].filter((item): item is [string, View] => {
    const [name, value] = item;
    if (typeof name !== "string") invalid(path, "has a tensor whose name is no text");
    if (value instanceof Map) invalid(path, `has a dict as ${name} where a tensor is expected; it is not a state_dict`);
    // Numbers and the like that trainers leave behind are nothing to us.
    return value instanceof View;
  });
}

function storedTensor(name: string, view: View, path: string, range: ZipRange | undefined): StoredTensor {
  const { storage, offset, shape, strides } = view;
  const { dtype, bytes, key } = storage;
  if (!range) return invalid(path, `has no storage ${key}, which tensor ${name} needs`);
  const contiguous = isContiguous(shape, strides);
  const count = elements(shape);
  const last = contiguous ? count : shape.reduce((sum, size, i) => sum + (size - 1) * strides[i]!, 1);
  const [needed, there] = [(offset + last) * bytes, range.end - range.begin];
  // An absurd shape needs more than any file has, whether or not its product is exact.
  if (!(needed <= there)) {
    return invalid(
      path,
      `has tensor ${name} of ${dtype} ${shapeText(shape)} in a storage of ${there} bytes, which needs ${needed}`,
    );
  }
  const begin = range.begin + offset * bytes;
  const tensor = { name, file: path, dtype, shape, begin, end: begin + last * bytes };
  return contiguous ? tensor : { ...tensor, strides };
}

/** Whether the numbers follow one another row by row. The stride along an axis of one number does not matter. */
function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  if (shape.includes(0)) return true;
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== expected) return false;
    expected *= shape[axis]!;
  }
  return true;
}

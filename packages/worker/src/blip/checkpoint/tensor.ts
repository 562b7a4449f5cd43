/** What a checkpoint's files say about its tensors, before a number of them is read. */
import { CapfleetError } from "@capfleet/shared/contract";

/** The formats of numbers that are read, with the bytes of one. */
export const FLOATS = { F32: 4, F16: 2, BF16: 2 };
export type FloatFormat = keyof typeof FLOATS;

/** Further formats. A tensor in one of these, or in one that is not known, only matters where it is used. */
const OTHERS = { F64: 8, I64: 8, I32: 4, I16: 2, I8: 1, U64: 8, U32: 4, U16: 2, U8: 1, BOOL: 1 };

/** The bytes of one number; undefined for a format that is not known. */
export const bytesOf = (dtype: string): number | undefined => BYTES.get(dtype);
const BYTES = new Map(Object.entries({ ...FLOATS, ...OTHERS }));

export interface StoredTensor {
  name: string;
  /** Path of the file that has it. */
  file: string;
  /** As safetensors calls them: F32, F16, BF16, I64 and so on. */
  dtype: string;
  shape: readonly number[];
  /** Where its bytes are in the file: [begin, end). Little-endian, row by row. */
  begin: number;
  end: number;
  /** Where the numbers do not follow one another row by row: how many lie between neighbours along each axis. */
  strides?: readonly number[];
}

export interface FloatTensor extends StoredTensor {
  dtype: FloatFormat;
}

export interface Checkpoint {
  folder: string;
  /** The files that hold the tensors, by their paths, as they were when their headers were read. */
  files: ReadonlyMap<string, FileVersion>;
  /** By the names that transformers gives them. */
  tensors: ReadonlyMap<string, StoredTensor>;
}

/** Tells whether a file has been written to. */
export interface FileVersion {
  size: number;
  /** Nanoseconds since 1970. */
  modified: bigint;
}

/**
 * The tensor `name`, if it has that shape. Throws MODEL_INVALID, naming it and what was expected and found;
 * MODEL_UNSUPPORTED where its numbers do not follow one another.
 */
export function findTensor({ folder, tensors }: Checkpoint, name: string, shape: readonly number[]): FloatTensor {
  const tensor = tensors.get(name);
  if (!tensor) return invalid(folder, `has no tensor ${name}; expected one of ${shapeText(shape)}`);
  if (shapeText(tensor.shape) !== shapeText(shape)) {
    return invalid(tensor.file, `has tensor ${name} of ${shapeText(tensor.shape)}, expected ${shapeText(shape)}`);
  }
  if (!isFloat(tensor)) {
    return invalid(tensor.file, `has tensor ${name} in ${tensor.dtype}, expected ${Object.keys(FLOATS).join(", ")}`);
  }
  if (tensor.strides) {
    const found = `with strides [${tensor.strides.join(", ")}]`;
    unsupported(tensor.file, `has tensor ${name} ${found}, not row by row: save it again after .contiguous()`);
  }
  return tensor;
}

/** How many numbers a tensor of that shape has; beyond 2^53, infinite or NaN where the shape is absurd. */
export const elements = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

export const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** Whether it can be a shape. More axes than NumPy allows are refused, since they only cost time. */
export const isShape = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length <= 64 && value.every(isCount);

export const isFloat = (tensor: StoredTensor): tensor is FloatTensor => Object.hasOwn(FLOATS, tensor.dtype);

export const shapeText = (shape: readonly number[]) => `shape [${shape.join(", ")}]`;

export function invalid(path: string, what: string, cause?: unknown): never {
  throw new CapfleetError("MODEL_INVALID", `${path} ${shorten(what)}`, { cause });
}

/** Sound, but in a form that is not read; `what` says how to convert it. */
export function unsupported(path: string, what: string): never {
  throw new CapfleetError("MODEL_UNSUPPORTED", `${path} ${shorten(what)}`);
}

/** A damaged file can have names of megabytes. */
const shorten = (text: string) => (text.length > 1_000 ? `${text.slice(0, 1_000)}…` : text);

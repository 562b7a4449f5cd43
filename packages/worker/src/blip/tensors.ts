/** Making and cutting ONNX Runtime's tensors. */
import { Tensor } from "onnxruntime-node";

export const int64 = (numbers: readonly number[], shape: readonly number[]): Tensor =>
  new Tensor("int64", BigInt64Array.from(numbers, BigInt), shape);

export const int32 = (numbers: readonly number[], shape: readonly number[]): Tensor =>
  new Tensor("int32", Int32Array.from(numbers), shape);

export const float32 = (numbers: readonly number[], shape: readonly number[]): Tensor =>
  new Tensor("float32", Float32Array.from(numbers), shape);

/** The slices of a float32 tensor, along its first axis, that `indices` names, in that order. All of them: the tensor itself. */
export function take(tensor: Tensor, indices: readonly number[]): Tensor {
  const [count, ...rest] = tensor.dims as [number, ...number[]];
  if (indices.length === count && indices.every((index, i) => index === i)) return tensor;
  const data = tensor.data as Float32Array;
  const size = data.length / count;
  const taken = new Float32Array(indices.length * size);
  for (const [i, index] of indices.entries()) taken.set(data.subarray(index * size, (index + 1) * size), i * size);
  return new Tensor("float32", taken, [indices.length, ...rest]);
}

/** float32 tensors one after the other along their first axis. */
export function concat(tensors: readonly Tensor[]): Tensor {
  const [first, ...others] = tensors as [Tensor, ...Tensor[]];
  if (others.length === 0) return first;
  const count = tensors.reduce((sum, { dims }) => sum + dims[0]!, 0);
  const joined = new Float32Array(tensors.reduce((sum, { data }) => sum + data.length, 0));
  let at = 0;
  for (const { data } of tensors) {
    joined.set(data as Float32Array, at);
    at += data.length;
  }
  return new Tensor("float32", joined, [count, ...first.dims.slice(1)]);
}

/** The rows of a tensor of real numbers or integers, [rows, …], as arrays of numbers. */
export function rows({ data, dims }: Tensor): number[][] {
  const numbers = Array.from(data as Float32Array | BigInt64Array, Number);
  const size = numbers.length / dims[0]!;
  return Array.from({ length: dims[0]! }, (_, i) => numbers.slice(i * size, (i + 1) * size));
}

/** Texts of token ids, each row padded to the longest: int64 [texts, tokens], and which tokens are a text's own. */
export function padded(texts: readonly (readonly number[])[]): { ids: Tensor; mask: Tensor } {
  const length = Math.max(...texts.map((ids) => ids.length));
  const filled = (values: (ids: readonly number[]) => readonly number[]) =>
    texts.flatMap((ids) => [...values(ids), ...Array<number>(length - ids.length).fill(0)]);
  return {
    ids: int64(
      filled((ids) => ids),
      [texts.length, length],
    ),
    mask: int32(
      filled((ids) => ids.map(() => 1)),
      [texts.length, length],
    ),
  };
}

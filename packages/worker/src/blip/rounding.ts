/// <reference lib="esnext.float16" />
/**
 * The forms in which a checkpoint's tensors stand in an engine's file of weights, and the conversion.
 *
 * In 8 and 4 bits numbers are rounded to multiples of a scale. There are three forms for matrices, [outputs, inputs] in
 * the checkpoint:
 *  - blocks: rows cut into blocks, each with a scale of its own (largest magnitude / 127), 128 added; for MatMulNBits,
 *    which rounds activations row by row, so that no row depends on another.
 *  - nibbles: the same in 4 bits, two to a byte, the first in the lower half. As in llama.cpp's Q4_0 a block's scale is
 *    the number of the largest magnitude / -8, so that it is met exactly and all 16 levels are used; 8 added.
 *  - columns: transposed, a scale per output; for DynamicQuantizeMatMul, which is the fastest but rounds all activations
 *    that it sees at once by one scale: for graphs that see one image at a time. Only 7 of the 8 bits are used, since
 *    processors without VNNI instructions add pairs of products in 16 bits.
 */

/** Forms that a tensor can be brought into a part at a time. */
type PartForm =
  | { kind: "float32" | "float16" }
  | { kind: "blocks" | "block scales" | "nibbles" | "nibble scales"; block: number };
export type Form = PartForm | { kind: "columns" | "column scales"; inputs: number };

const BLOCK_LEVELS = 127;
const COLUMN_LEVELS = 63;
const NIBBLE_LEVELS = -8;

/** What so many numbers take in that form. */
export function bytesIn(numbers: number, form: Form): number {
  switch (form.kind) {
    case "float32":
      return 4 * numbers;
    case "float16":
      return 2 * numbers;
    case "blocks":
    case "columns":
      return numbers;
    case "nibbles":
      return numbers / 2;
    case "block scales":
    case "nibble scales":
      return (4 * numbers) / form.block;
    case "column scales":
      return (4 * numbers) / form.inputs;
  }
}

/**
 * A tensor that is read a few MB at a time (always whole blocks), converted. Columns are the one form that takes the
 * whole tensor into memory.
 */
export async function* convert(
  parts: AsyncIterable<Float32Array<ArrayBuffer>>,
  form: Form,
): AsyncGenerator<Uint8Array> {
  if ("inputs" in form) {
    const all: Float32Array[] = [];
    for await (const part of parts) all.push(part.slice());
    const rows = joined(all);
    const scales = scalesOf(rows, form.inputs, COLUMN_LEVELS);
    yield form.kind === "columns" ? columns(rows, scales, form.inputs) : new Uint8Array(scales.buffer);
    return;
  }
  for await (const part of parts) yield convertPart(part, form);
}

function convertPart(part: Float32Array<ArrayBuffer>, form: PartForm): Uint8Array {
  if (!("block" in form)) {
    const reals = form.kind === "float32" ? part : new Float16Array(part);
    return new Uint8Array(reals.buffer, reals.byteOffset, reals.byteLength);
  }
  const { kind, block } = form;
  const inBytes = kind === "blocks" || kind === "block scales";
  const scales = inBytes ? scalesOf(part, block, BLOCK_LEVELS) : nibbleScales(part, block);
  if (kind === "blocks") return blocks(part, scales, block);
  if (kind === "nibbles") return nibbles(part, scales, block);
  return new Uint8Array(scales.buffer);
}

function blocks(numbers: Float32Array, scales: Float32Array, block: number): Uint8Array {
  const bytes = new Uint8Array(numbers.length);
  for (let at = 0, i = 0; at < scales.length; at++) {
    const scale = scales[at]!;
    for (const end = i + block; i < end; i++) bytes[i] = 128 + rounded(numbers[i]!, scale);
  }
  return bytes;
}

function nibbles(numbers: Float32Array, scales: Float32Array, block: number): Uint8Array {
  const bytes = new Uint8Array(numbers.length / 2);
  for (let at = 0, i = 0; at < scales.length; at++) {
    const scale = scales[at]!;
    for (const end = i + block; i < end; i += 2) {
      bytes[i / 2] = nibble(numbers[i]!, scale) + 16 * nibble(numbers[i + 1]!, scale);
    }
  }
  return bytes;
}

const nibble = (number: number, scale: number): number => Math.min(15, 8 + rounded(number, scale));

/** [outputs, inputs] to int8 [inputs, outputs]. */
function columns(rows: Float32Array, scales: Float32Array, inputs: number): Uint8Array {
  const outputs = scales.length;
  const turned = new Int8Array(rows.length);
  for (let out = 0; out < outputs; out++) {
    const scale = scales[out]!;
    for (let i = 0; i < inputs; i++) turned[i * outputs + out] = rounded(rows[out * inputs + i]!, scale);
  }
  return new Uint8Array(turned.buffer);
}

const rounded = (number: number, scale: number): number => (scale === 0 ? 0 : Math.round(number / scale));

/** The largest magnitude of each `size` numbers, divided by `levels`. */
function scalesOf(numbers: Float32Array, size: number, levels: number): Float32Array<ArrayBuffer> {
  const scales = new Float32Array(numbers.length / size);
  for (let at = 0; at < scales.length; at++) {
    let most = 0;
    for (let i = at * size; i < (at + 1) * size; i++) most = Math.max(most, Math.abs(numbers[i]!));
    scales[at] = most / levels;
  }
  return scales;
}

/** Of each `size` numbers the one of the largest magnitude, with its sign, divided by the lowest level. */
function nibbleScales(numbers: Float32Array, size: number): Float32Array<ArrayBuffer> {
  const scales = new Float32Array(numbers.length / size);
  for (let at = 0; at < scales.length; at++) {
    let most = 0;
    for (let i = at * size; i < (at + 1) * size; i++) if (Math.abs(numbers[i]!) > Math.abs(most)) most = numbers[i]!;
    scales[at] = most / NIBBLE_LEVELS;
  }
  return scales;
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/// <reference lib="esnext.float16" />
/**
 * Which of a checkpoint's tensors the graphs of an engine use, in which form, and where they go in the one file of
 * weights that the graphs share. Building the graphs only plans; `bytes` then converts piece by piece, so that memory
 * does not grow with the checkpoint.
 *
 * In 8 bits a matrix is cut into blocks along its rows; each block's numbers are rounded to multiples of its largest
 * magnitude / 127 (symmetric; stored with 128 added, as com.microsoft's MatMulNBits reads them).
 */
import type { Precision } from "@capfleet/shared/contract";
import type { Linear } from "./blocks.ts";
import { type Checkpoint, CheckpointReader, elements, type FloatTensor, findTensor } from "./checkpoint/index.ts";
import { WEIGHTS_FILE } from "./folder.ts";
import type { Graph, Value } from "./onnx/graph.ts";

/** Tensors begin at cache lines. */
const ALIGNMENT = 64;
/** Sizes of blocks, the best first: large ones are fastest, and a scale per 256 weights loses nothing that shows. */
const BLOCKS = [256, 128, 64, 32, 16];

type Form =
  | { kind: "float32" }
  | { kind: "float16" }
  | { kind: "rounded"; block: number }
  | { kind: "scales"; block: number };

interface Piece {
  tensor: FloatTensor;
  offset: number;
  form: Form;
}

/** The file of weights of one engine. */
export class WeightsFile {
  readonly checkpoint: Checkpoint;
  readonly precision: Precision;
  /** By the names of the checkpoint's tensors and their form, so that a tensor used twice is there once. */
  readonly #placed = new Map<string, { offset: number; length: number }>();
  /** What the file consists of, in its order. */
  readonly #pieces: Piece[] = [];
  #end = 0;

  constructor(checkpoint: Checkpoint, precision: Precision) {
    this.checkpoint = checkpoint;
    this.precision = precision;
  }

  /** In bytes, once the graphs are built. */
  get size(): number {
    return this.#end;
  }

  /** All of the checkpoint's tensors, for use in `graph` and its subgraphs. */
  in(graph: Graph): Weights {
    return new Weights(this, graph, new Set(), "");
  }

  /** Where the tensors stand, one after the other; new ones get a place. Throws MODEL_INVALID: missing or misshapen. */
  place(names: readonly string[], shape: readonly number[], form: Form) {
    const key = `${names.join("|")} ${form.kind}`;
    const known = this.#placed.get(key);
    if (known) return known;
    const offset = Math.ceil(this.#end / ALIGNMENT) * ALIGNMENT;
    let end = offset;
    for (const name of names) {
      this.#pieces.push({ tensor: findTensor(this.checkpoint, name, shape), offset: end, form });
      end += bytesIn(elements(shape), form);
    }
    this.#end = end;
    const place = { offset, length: end - offset };
    this.#placed.set(key, place);
    return place;
  }

  /** The file, piece by piece. Throws MODEL_INVALID where the checkpoint's files end too early or have changed. */
  async *bytes(): AsyncGenerator<Uint8Array> {
    await using reader = new CheckpointReader(this.checkpoint);
    let end = 0;
    for (const { tensor, offset, form } of this.#pieces) {
      if (offset > end) yield new Uint8Array(offset - end);
      end = offset;
      for await (const floats of reader.floats(tensor)) {
        const bytes = convert(floats, form);
        yield bytes;
        end += bytes.byteLength;
      }
    }
  }
}

/** A checkpoint's tensors below one module name, such as `vision_model.encoder.layers.0`, for use in one graph. */
export class Weights {
  readonly #file: WeightsFile;
  readonly #graph: Graph;
  /** What the graph knows of already. */
  readonly #declared: Set<string>;
  readonly #module: string;

  constructor(file: WeightsFile, graph: Graph, declared: Set<string>, module: string) {
    this.#file = file;
    this.#graph = graph;
    this.#declared = declared;
    this.#module = module;
  }

  at(module: string): Weights {
    return new Weights(this.#file, this.#graph, this.#declared, this.#full(module));
  }

  has(name: string): boolean {
    return this.#file.checkpoint.tensors.has(this.#full(name));
  }

  /** One tensor of real numbers. `as`: another shape for the same numbers. Throws MODEL_INVALID: missing or misshapen. */
  tensor(name: string, shape: readonly number[], as: readonly number[] = shape): Value {
    return this.#reals([name], shape, as);
  }

  /** Tensors of the same shape, one after the other along their first axis. Throws MODEL_INVALID. */
  stacked(names: readonly string[], shape: readonly number[]): Value {
    const [first, ...rest] = shape;
    return this.#reals(names, shape, [first! * names.length, ...rest]);
  }

  /** The weight of a linear layer, of several stacked ones, [outputs, inputs] each. Throws MODEL_INVALID. */
  matrix(names: readonly string[], outputs: number, inputs: number): Linear["weight"] {
    const block = this.#file.precision === "int8" ? BLOCKS.find((size) => inputs % size === 0) : undefined;
    const shape = [outputs, inputs];
    // A width that no block divides is that of a toy; it stays as it is.
    if (block === undefined) return { plain: this.stacked(names, shape) };
    const rows = names.length * outputs;
    const blocks = inputs / block;
    return {
      rounded: this.#declare(names, shape, { kind: "rounded", block }, "uint8", [rows, blocks, block]),
      scales: this.#declare(names, shape, { kind: "scales", block }, "float32", [rows * blocks]),
      block,
    };
  }

  #reals(names: readonly string[], shape: readonly number[], as: readonly number[]): Value {
    const kind = this.#graph.real;
    return this.#declare(names, shape, { kind }, kind, as);
  }

  #declare(
    names: readonly string[],
    shape: readonly number[],
    form: Form,
    type: "float32" | "float16" | "uint8",
    as: readonly number[],
  ): Value {
    const full = names.map((name) => this.#full(name));
    const place = this.#file.place(full, shape, form);
    const stem = full.join("|");
    const name = form.kind === "rounded" || form.kind === "scales" ? `${stem}.${form.kind}` : stem;
    if (this.#declared.has(name)) return name as Value;
    this.#declared.add(name);
    return this.#graph.external(name, type, as, { file: WEIGHTS_FILE, ...place });
  }

  #full(name: string): string {
    return this.#module ? `${this.#module}.${name}` : name;
  }
}

function bytesIn(numbers: number, form: Form): number {
  if (form.kind === "float32") return 4 * numbers;
  if (form.kind === "float16") return 2 * numbers;
  return form.kind === "rounded" ? numbers : (4 * numbers) / form.block;
}

/** `floats`: whole blocks, since what is read at a time is a multiple of every block's size. */
function convert(floats: Float32Array<ArrayBuffer>, form: Form): Uint8Array {
  if (form.kind === "float32") return new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
  if (form.kind === "float16") return new Uint8Array(new Float16Array(floats).buffer);
  const { block } = form;
  const scales = scalesOf(floats, block);
  if (form.kind === "scales") return new Uint8Array(scales.buffer);
  const rounded = new Uint8Array(floats.length);
  for (let i = 0; i < floats.length; i++) {
    const scale = scales[Math.floor(i / block)]!;
    rounded[i] = scale === 0 ? 128 : Math.round(floats[i]! / scale) + 128;
  }
  return rounded;
}

function scalesOf(floats: Float32Array, block: number): Float32Array<ArrayBuffer> {
  const scales = new Float32Array(floats.length / block);
  for (let b = 0; b < scales.length; b++) {
    let most = 0;
    for (let i = b * block; i < (b + 1) * block; i++) most = Math.max(most, Math.abs(floats[i]!));
    scales[b] = most / 127;
  }
  return scales;
}

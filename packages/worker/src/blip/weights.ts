/**
 * Which of a checkpoint's tensors the graphs of an engine use, in which form, and where they go in the one file of
 * weights that the graphs share. Building the graphs only plans; `bytes` then converts piece by piece, so that memory
 * does not grow with the checkpoint.
 */
import type { Precision } from "@capfleet/shared/contract";
import { type Checkpoint, CheckpointReader, elements, type FloatTensor, findTensor } from "./checkpoint/index.ts";
import { WEIGHTS_FILE } from "./folder.ts";
import type { Graph, Value } from "./onnx/graph.ts";
import type { DataType } from "./onnx/schema.ts";
import { bytesIn, convert, type Form } from "./rounding.ts";

/** Tensors begin at cache lines. */
const ALIGNMENT = 64;
/**
 * Sizes of blocks, the best first. With larger ones MatMulNBits is a fifth faster, but then adds up the last of an odd
 * number of rows in another order than the others: a row's result would depend on how many there are.
 */
const BLOCKS = [64, 32, 16];
/** In 4 bits blocks of 64 have the same fault. */
const NIBBLE_BLOCK = 32;

/** The weight of a linear layer: [outputs, inputs] as in the checkpoint, or in one of the forms with 8 or 4 bits. */
export type Matrix =
  | { plain: Value }
  | { blocks: Value; scales: Value; block: number; bits: 8 | 4 }
  | { columns: Value; scales: Value };

/** How matrices are rounded; `columns` where a graph sees one image at a time. See rounding.ts. */
type Rounding = "none" | "blocks" | "nibbles" | "columns";

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
    const rounding = this.precision === "int8" || this.precision === "int4" ? "blocks" : "none";
    return new Weights({ file: this, graph, rounding, declared: new Set() }, "");
  }

  /** Whether anything is in 4 bits. */
  get hasNibbles(): boolean {
    return this.#pieces.some(({ form }) => form.kind === "nibbles");
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
      for await (const bytes of convert(reader.floats(tensor), form)) {
        yield bytes;
        end += bytes.byteLength;
      }
    }
  }
}

interface Use {
  file: WeightsFile;
  graph: Graph;
  rounding: Rounding;
  /** Names of tensors that the graph has already. */
  declared: Set<string>;
}

/** A checkpoint's tensors below one module name, such as `vision_model.encoder.layers.0`, for use in one graph. */
export class Weights {
  readonly #use: Use;
  readonly #module: string;

  constructor(use: Use, module: string) {
    this.#use = use;
    this.#module = module;
  }

  at(module: string): Weights {
    return new Weights(this.#use, this.#full(module));
  }

  /** The same for a part of the graph that sees one image at a time. */
  get byColumns(): Weights {
    return this.rounded ? new Weights({ ...this.#use, rounding: "columns" }, this.#module) : this;
  }

  /** The same for matrices that are in 4 bits where the engine's precision says so: those of large language models. */
  get large(): Weights {
    if (this.#use.file.precision !== "int4") return this;
    return new Weights({ ...this.#use, rounding: "nibbles" }, this.#module);
  }

  /** The same in float32 whatever the engine's precision. `graph`: this one's, as float32. */
  exact(graph: Graph): Weights {
    return new Weights({ ...this.#use, graph, rounding: "none" }, this.#module);
  }

  has(name: string): boolean {
    return this.#use.file.checkpoint.tensors.has(this.#full(name));
  }

  /** Whether matrices are in 8 or 4 bits. */
  get rounded(): boolean {
    return this.#use.rounding !== "none";
  }

  /** A table of which a few rows are looked up. Where matrices are rounded, it is in float16: half the memory. */
  table(name: string, shape: readonly number[]): Value {
    if (!this.rounded) return this.tensor(name, shape);
    return this.#declare([name], shape, { kind: "float16" }, "float16", shape);
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

  /** The weight of a linear layer, or of several stacked ones, [outputs, inputs] each. Throws MODEL_INVALID. */
  matrix(names: readonly string[], outputs: number, inputs: number): Matrix {
    const { rounding } = this.#use;
    const shape = [outputs, inputs];
    if (!this.rounded) return { plain: this.stacked(names, shape) };
    if (rounding === "columns" && names.length === 1) {
      return {
        columns: this.#declare(names, shape, { kind: "columns", inputs }, "int8", [inputs, outputs]),
        scales: this.#declare(names, shape, { kind: "column scales", inputs }, "float32", [outputs]),
      };
    }
    const bits = rounding === "nibbles" && inputs % NIBBLE_BLOCK === 0 ? 4 : 8;
    const block = bits === 4 ? NIBBLE_BLOCK : BLOCKS.find((size) => inputs % size === 0);
    // A width that no block divides is that of a toy; it stays as it is.
    if (block === undefined) return { plain: this.stacked(names, shape) };
    const rows = names.length * outputs;
    const blocks = inputs / block;
    const [kind, scales] = bits === 4 ? (["nibbles", "nibble scales"] as const) : (["blocks", "block scales"] as const);
    return {
      blocks: this.#declare(names, shape, { kind, block }, "uint8", [rows, blocks, (block * bits) / 8]),
      scales: this.#declare(names, shape, { kind: scales, block }, "float32", [rows * blocks]),
      block,
      bits,
    };
  }

  #reals(names: readonly string[], shape: readonly number[], as: readonly number[]): Value {
    const kind = this.#use.graph.real;
    return this.#declare(names, shape, { kind }, kind, as);
  }

  #declare(
    names: readonly string[],
    shape: readonly number[],
    form: Form,
    type: DataType,
    as: readonly number[],
  ): Value {
    const { file, graph, declared } = this.#use;
    const full = names.map((name) => this.#full(name));
    const place = file.place(full, shape, form);
    const stem = full.join("|");
    const name = `${stem} ${form.kind}`;
    if (declared.has(name)) return name as Value;
    declared.add(name);
    return graph.external(name, type, as, { file: WEIGHTS_FILE, ...place });
  }

  #full(name: string): string {
    return this.#module ? `${this.#module}.${name}` : name;
  }
}

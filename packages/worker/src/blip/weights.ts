/**
 * Which of a checkpoint's tensors a graph uses, and where they go in the file of weights. Building the graph only plans;
 * `bytes` then converts to float32 piece by piece, so that memory does not grow with the checkpoint.
 */
import { open } from "node:fs/promises";
import { WEIGHTS_FILE } from "./folder.ts";
import type { Graph, Value } from "./onnx/graph.ts";
import { type Checkpoint, elements, type FloatTensor, findTensor, readFloats } from "./safetensors.ts";

/** Tensors begin at cache lines. */
const ALIGNMENT = 64;

interface Plan {
  graph: Graph;
  checkpoint: Checkpoint;
  /** By the names of the checkpoint's tensors, so that a tensor used twice is there once. */
  placed: Map<string, Value>;
  /** What the file of weights consists of, in its order. */
  pieces: { tensor: FloatTensor; offset: number }[];
  end: number;
}

/** A checkpoint's tensors below one module name, such as `vision_model.encoder.layers.0`. */
export class Weights {
  readonly #plan: Plan;
  readonly #module: string;

  private constructor(plan: Plan, module: string) {
    this.#plan = plan;
    this.#module = module;
  }

  /** All of the checkpoint's tensors, for use in `graph` and its subgraphs. */
  static of(checkpoint: Checkpoint, graph: Graph): Weights {
    return new Weights({ graph, checkpoint, placed: new Map(), pieces: [], end: 0 }, "");
  }

  at(module: string): Weights {
    return new Weights(this.#plan, this.#full(module));
  }

  has(name: string): boolean {
    return this.#plan.checkpoint.tensors.has(this.#full(name));
  }

  /** One tensor, float32. `as`: another shape for the same numbers. Throws MODEL_INVALID: missing or misshapen. */
  tensor(name: string, shape: readonly number[], as: readonly number[] = shape): Value {
    return this.#place([this.#full(name)], shape, as);
  }

  /** Tensors of the same shape, one after the other along their first axis. Throws MODEL_INVALID. */
  stacked(names: readonly string[], shape: readonly number[]): Value {
    const [first, ...rest] = shape;
    return this.#place(
      names.map((name) => this.#full(name)),
      shape,
      [first! * names.length, ...rest],
    );
  }

  /** The file of weights, piece by piece. Throws MODEL_INVALID where the checkpoint's file ends too early. */
  async *bytes(): AsyncGenerator<Uint8Array> {
    const { checkpoint, pieces } = this.#plan;
    const file = await open(checkpoint.file);
    try {
      let end = 0;
      for (const { tensor, offset } of pieces) {
        if (offset > end) yield new Uint8Array(offset - end);
        end = offset;
        for await (const floats of readFloats(file, checkpoint, tensor)) {
          yield new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
          end += floats.byteLength;
        }
      }
    } finally {
      await file.close();
    }
  }

  #full(name: string): string {
    return this.#module ? `${this.#module}.${name}` : name;
  }

  #place(names: readonly string[], shape: readonly number[], as: readonly number[]): Value {
    const { graph, checkpoint, placed, pieces } = this.#plan;
    const key = names.join("|");
    const known = placed.get(key);
    if (known) return known;
    const offset = Math.ceil(this.#plan.end / ALIGNMENT) * ALIGNMENT;
    let end = offset;
    for (const name of names) {
      pieces.push({ tensor: findTensor(checkpoint, name, shape), offset: end });
      end += 4 * elements(shape);
    }
    this.#plan.end = end;
    const value = graph.external(key, as, { file: WEIGHTS_FILE, offset, length: end - offset });
    placed.set(key, value);
    return value;
  }
}

/** The parts that BLIP's vision and text transformers are made of, each written once. */
import { float, type Graph, int, ints, type Value } from "./onnx/graph.ts";
import type { Weights } from "./weights.ts";

/** A linear layer: `weight` [out, in] as in the checkpoint, `bias` [out]. */
export interface Linear {
  weight: Value;
  bias: Value;
}

export interface Norm {
  weight: Value;
  bias: Value;
  epsilon: number;
}

/** Keys and values, each [batch, heads, positions, head size]. */
export interface Memory {
  keys: Value;
  values: Value;
}

export const linearOf = (weights: Weights, inputs: number, outputs: number): Linear => ({
  weight: weights.tensor("weight", [outputs, inputs]),
  bias: weights.tensor("bias", [outputs]),
});

export const normOf = (weights: Weights, width: number, epsilon: number): Norm => ({
  weight: weights.tensor("weight", [width]),
  bias: weights.tensor("bias", [width]),
  epsilon,
});

/** x·Wᵀ without the bias, for ops that add the bias themselves. */
const product = (graph: Graph, x: Value, { weight }: Linear): Value =>
  graph.op("FusedMatMul", [x, weight], { transB: int(1) });

export const linear = (graph: Graph, x: Value, layer: Linear): Value =>
  graph.op("Add", [product(graph, x, layer), layer.bias]);

export const layerNorm = (graph: Graph, x: Value, { weight, bias, epsilon }: Norm): Value =>
  graph.op("LayerNormalization", [x, weight, bias], { epsilon: float(epsilon) });

/** residual + layer(x) as `sum`, and its LayerNorm as `normed`: the end of every block of both transformers. */
export function addAndNorm(graph: Graph, x: Value, layer: Linear, residual: Value, norm: Norm) {
  const inputs = [product(graph, x, layer), residual, norm.weight, norm.bias, layer.bias];
  // Outputs 1 and 2 are for training.
  const [normed, sum] = graph.ops("SkipLayerNormalization", inputs, [0, 3], { epsilon: float(norm.epsilon) });
  return { normed: normed!, sum: sum! };
}

/** Gelu(x·Wᵀ + b), with the exact error function. */
export const linearGelu = (graph: Graph, x: Value, layer: Linear): Value =>
  graph.op("BiasGelu", [product(graph, x, layer), layer.bias]);

/** Every position attends to every position. x and the result: [batch, positions, width]; `qkv`: rows of Q, K, V. */
export function selfAttention(graph: Graph, x: Value, qkv: Linear, heads: number): Value {
  const parts = graph.ops("Split", [product(graph, x, qkv)], [0, 1, 2], { axis: int(-1) });
  return graph.op("MultiHeadAttention", [...parts, qkv.bias], { num_heads: int(heads) });
}

/** One more position, [batch, 1, width], attends to itself and to those in `past`; `present` has it added. */
export function cachedSelfAttention(graph: Graph, x: Value, qkv: Linear, heads: number, past: Memory) {
  const parts = graph.ops("Split", [product(graph, x, qkv)], [0, 1, 2], { axis: int(-1) });
  const inputs = [...parts, qkv.bias, null, null, past.keys, past.values];
  const [context, keys, values] = graph.ops("MultiHeadAttention", inputs, [0, 1, 2], { num_heads: int(heads) });
  return { context: context!, present: { keys: keys!, values: values! } satisfies Memory };
}

/** Every position of x attends to every position of `memory`. */
export const crossAttention = (graph: Graph, x: Value, query: Linear, heads: number, memory: Memory): Value =>
  graph.op("MultiHeadAttention", [linear(graph, x, query), memory.keys, memory.values], { num_heads: int(heads) });

/** x, [batch, positions, width], as keys or values: [batch, heads, positions, width of the layer / heads]. */
export function splitHeads(graph: Graph, x: Value, layer: Linear, heads: number): Value {
  const shape = graph.int64([0, 0, heads, -1]);
  const split = graph.op("Reshape", [linear(graph, x, layer), shape]);
  return graph.op("Transpose", [split], { perm: ints(0, 2, 1, 3) });
}

/** The parts that transformers are made of, each written once for all models and precisions. */
import { dataType, float, type Graph, int, ints, type Value } from "./onnx/graph.ts";
import type { DataType } from "./onnx/schema.ts";
import type { Matrix, Weights } from "./weights.ts";

/** x·Wᵀ. */
export interface Product {
  inputs: number;
  outputs: number;
  weight: Matrix;
}

/** A linear layer, x·Wᵀ + b. */
export interface Linear extends Product {
  /** [outputs]. */
  bias: Value;
}

export interface Norm {
  weight: Value;
  bias: Value;
  epsilon: number;
}

/** Keys and values, each [groups, heads, positions, head size], of what a group's queries look at. */
export interface Memory {
  keys: Value;
  values: Value;
}

export const linearOf = (weights: Weights, inputs: number, outputs: number): Linear => ({
  inputs,
  outputs,
  weight: weights.matrix(["weight"], outputs, inputs),
  bias: weights.tensor("bias", [outputs]),
});

/** A layer that is not worth rounding: there are few rows for it, or few outputs. */
export const exactLinearOf = (weights: Weights, inputs: number, outputs: number): Linear => ({
  inputs,
  outputs,
  weight: { plain: weights.tensor("weight", [outputs, inputs]) },
  bias: weights.tensor("bias", [outputs]),
});

/** Several layers on the same input as one, their outputs one after the other. */
export const stackedLinear = (weights: Weights, names: readonly string[], inputs: number, outputs: number): Linear => ({
  inputs,
  outputs: names.length * outputs,
  weight: weights.matrix(
    names.map((name) => `${name}.weight`),
    outputs,
    inputs,
  ),
  bias: weights.stacked(
    names.map((name) => `${name}.bias`),
    [outputs],
  ),
});

export const normOf = (weights: Weights, width: number, epsilon: number): Norm => ({
  weight: weights.tensor("weight", [width]),
  bias: weights.tensor("bias", [width]),
  epsilon,
});

/** Asks MatMulNBits to round activations to 8 bits too: integer products, with a scale per row and block. */
const INT8_ACTIVATIONS = 4;

/** x·Wᵀ without a bias, where there is none or an op adds it by itself. */
export function product(graph: Graph, x: Value, { inputs, outputs, weight }: Product): Value {
  if ("plain" in weight) return graph.op("FusedMatMul", [x, weight.plain], { transB: int(1) });
  if ("columns" in weight) return graph.op("DynamicQuantizeMatMul", [x, weight.columns, weight.scales]);
  return graph.op("MatMulNBits", [x, weight.blocks, weight.scales], {
    K: int(inputs),
    N: int(outputs),
    bits: int(weight.bits),
    block_size: int(weight.block),
    accuracy_level: int(INT8_ACTIVATIONS),
  });
}

export const linear = (graph: Graph, x: Value, layer: Linear): Value =>
  graph.op("Add", [product(graph, x, layer), layer.bias]);

export const layerNorm = (graph: Graph, x: Value, { weight, bias, epsilon }: Norm): Value =>
  graph.op("LayerNormalization", [x, weight, bias], { epsilon: float(epsilon) });

/** residual + layer(x) as `sum`, and its LayerNorm as `normed`: the end of every block of both transformers. */
export function addAndNorm(graph: Graph, x: Value, layer: Linear, residual: Value, norm: Norm) {
  if (graph.real === "float16") {
    // CUDA's SkipLayerNormalization adds up in float16; LayerNormalization adds up in float32.
    const sum = graph.op("Add", [linear(graph, x, layer), residual]);
    return { normed: layerNorm(graph, sum, norm), sum };
  }
  const inputs = [product(graph, x, layer), residual, norm.weight, norm.bias, layer.bias];
  // Outputs 1 and 2 are for training.
  const [normed, sum] = graph.ops("SkipLayerNormalization", inputs, [0, 3], { epsilon: float(norm.epsilon) });
  return { normed: normed!, sum: sum! };
}

/** Gelu(x·Wᵀ + b), with the exact error function. */
export const linearGelu = (graph: Graph, x: Value, layer: Linear): Value =>
  graph.op("BiasGelu", [product(graph, x, layer), layer.bias]);

export const linearRelu = (graph: Graph, x: Value, layer: Linear): Value => graph.op("Relu", [linear(graph, x, layer)]);

/** The rows of an embedding table, [numbers, width], that `ids` name: [...shape of ids, width]. */
export function lookup(graph: Graph, weights: Weights, name: string, shape: readonly number[], ids: Value): Value {
  const rows = graph.op("Gather", [weights.table(name, shape), ids]);
  return weights.rounded ? cast(graph, rows, graph.real) : rows;
}

/** A layer of a transformer that normalizes before its blocks (pre-LN), and the norm of what comes after it. */
export interface PreNormLayer {
  /** Self-attention, up to its projection. */
  attend(x: Value): Value;
  projection: Linear;
  middleNorm: Norm;
  first: Linear;
  activation: (graph: Graph, x: Value, layer: Linear) => Value;
  second: Linear;
  nextNorm: Norm;
}

/** Layers one after the other; each one's sum goes on to the next, whose norm is computed in the same op as the sum. */
export function preNormLayers(graph: Graph, x: Value, norm: Norm, layers: readonly PreNormLayer[]): Value {
  let sum = x;
  let normed = layerNorm(graph, x, norm);
  for (const { attend, projection, middleNorm, first, activation, second, nextNorm } of layers) {
    ({ normed, sum } = addAndNorm(graph, attend(normed), projection, sum, middleNorm));
    ({ normed, sum } = addAndNorm(graph, activation(graph, normed, first), second, sum, nextNorm));
  }
  return normed;
}

/** The end of a block in BERT and its kind: LayerNorm(residual + dense(x)). Post-LN, so only the norm goes on. */
export function denseAndNorm(
  graph: Graph,
  module: Weights,
  { inputs, width, epsilon }: { inputs: number; width: number; epsilon: number },
  x: Value,
  residual: Value,
): Value {
  const dense = linearOf(module.at("dense"), inputs, width);
  return addAndNorm(graph, x, dense, residual, normOf(module.at("LayerNorm"), width, epsilon)).normed;
}

/**
 * Positions of the same row look at each other: all of them, or (`causal`) those before and themselves. `mask`: int32
 * [rows, positions], 0 for positions that nobody looks at; `bias`, [rows or 1, 1, positions, positions], is added to
 * what attention's softmax is of. x and the result: [rows, positions, width]; `qkv`: Q, K, V.
 */
export function selfAttention(
  graph: Graph,
  x: Value,
  qkv: Linear,
  heads: number,
  { mask = null, bias = null, causal = false }: { mask?: Value | null; bias?: Value | null; causal?: boolean } = {},
): Value {
  const parts = graph.ops("Split", [product(graph, x, qkv)], [0, 1, 2], { axis: int(-1) });
  const attributes = { num_heads: int(heads), unidirectional: int(causal ? 1 : 0) };
  return graph.op("MultiHeadAttention", [...parts, qkv.bias, mask, bias], attributes);
}

/**
 * Further positions, [rows, positions, width], look at those in `past`, at each other's before, and at themselves;
 * `present` has them added. `mask`: int32 [rows, all positions], 0 for those that nobody looks at.
 */
export function cachedSelfAttention(
  graph: Graph,
  x: Value,
  qkv: Linear,
  heads: number,
  { past, mask }: { past: Memory; mask: Value | null },
) {
  const parts = graph.ops("Split", [product(graph, x, qkv)], [0, 1, 2], { axis: int(-1) });
  const inputs = [...parts, qkv.bias, mask, null, past.keys, past.values];
  const attributes = { num_heads: int(heads), unidirectional: int(1) };
  const [context, keys, values] = graph.ops("MultiHeadAttention", inputs, [0, 1, 2], attributes);
  return { context: context!, present: { keys: keys!, values: values! } satisfies Memory };
}

/** What the rows of a text transformer look at besides each other: an image's states, or a question's. */
export interface Source {
  /** Each layer's memory; null for a layer that does not look. */
  memories: readonly (Memory | null)[];
  /** int64 [1]: how many things there are to look at. Each has the same number of rows. */
  groups: Value;
  /** int32 [groups, positions]: 0 where there is nothing; null where there is something everywhere. */
  mask: Value | null;
}

/**
 * Every position of x, [rows, positions, width], looks at the memory of its row's group. The rows of a group follow
 * each other, and are folded into one row of queries, so that the memory is there once for all of them. `groups`: int64
 * [1], their number; `mask`: int32 [groups, memory's positions].
 */
export function crossAttention(
  graph: Graph,
  x: Value,
  query: Linear,
  heads: number,
  { memory, groups, mask }: { memory: Memory; groups: Value; mask: Value | null },
): Value {
  const shape = graph.op("Shape", [x]);
  const folded = graph.op("Concat", [groups, graph.int64([-1, query.outputs])], { axis: int(0) });
  const queries = graph.op("Reshape", [linear(graph, x, query), folded]);
  const inputs = [queries, memory.keys, memory.values, null, mask];
  return graph.op("Reshape", [graph.op("MultiHeadAttention", inputs, { num_heads: int(heads) }), shape]);
}

/** `states`, [groups, positions, width], as a layer's keys and values: computed once, used by every row and token. */
export const memoryOf = (graph: Graph, states: Value, keys: Linear, values: Linear, heads: number): Memory => ({
  keys: splitHeads(graph, states, keys, heads),
  values: splitHeads(graph, states, values, heads),
});

/** x, [batch, positions, width], as keys or values: [batch, heads, positions, width of the layer / heads]. */
function splitHeads(graph: Graph, x: Value, layer: Linear, heads: number): Value {
  const shape = graph.int64([0, 0, heads, -1]);
  const split = graph.op("Reshape", [linear(graph, x, layer), shape]);
  return graph.op("Transpose", [split], { perm: ints(0, 2, 1, 3) });
}

/** The first position of each row, [rows, positions, width] to [rows, width]. */
export const firstPosition = (graph: Graph, x: Value): Value =>
  graph.op("Gather", [x, graph.int64(0)], { axis: int(1) });

/** The last positions of each row, as many as `count`, int64 [1], or one. */
export const lastPositions = (graph: Graph, x: Value, count: Value = graph.int64([1])): Value =>
  graph.op("Slice", [x, graph.op("Sub", [graph.int64([0]), count]), graph.int64([END]), graph.int64([1])]);
/** Beyond every size. */
const END = 2 ** 31 - 1;

/** int64 [1]: the size of x along an axis. */
export const sizeOf = (graph: Graph, x: Value, axis: number): Value =>
  graph.op("Shape", [x], { start: int(axis), end: int(axis + 1) });

/** int64 [count]: 0, 1, 2, …; `count`: int64 [1]. */
export const numbered = (graph: Graph, count: Value): Value =>
  graph.op("CumSum", [graph.op("Expand", [graph.int64([1]), count]), graph.int64(0)], { exclusive: int(1) });

/** x, [..., width], scaled to length 1, float32; as torch's `normalize`, zeros stay zeros. */
export function normalize(graph: Graph, x: Value): Value {
  const wide = graph.toFloat32(x);
  const length = graph.op("ReduceL2", [wide], { axes: ints(-1), keepdims: int(1) });
  return graph.op("Div", [wide, graph.op("Max", [length, graph.float32([1e-12], [])])]);
}

/** x as another type. */
export const cast = (graph: Graph, x: Value, type: DataType): Value => graph.op("Cast", [x], { to: dataType(type) });

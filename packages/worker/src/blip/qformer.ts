/**
 * BLIP-2's Q-Former (Li et al. 2023): a BERT whose learned queries look at an image, and at a text where there is one.
 * Queries and text share self-attention; each has an MLP of its own, and only queries look at the image.
 */
import {
  cast,
  crossAttention,
  denseAndNorm,
  layerNorm,
  linearGelu,
  linearOf,
  lookup,
  memoryOf,
  normOf,
  type Source,
  selfAttention,
  sizeOf,
  stackedLinear,
} from "./blocks.ts";
import { type Graph, int, type Value } from "./onnx/graph.ts";
import type { Weights } from "./weights.ts";

export interface QFormerConfig {
  width: number;
  /** Width of the MLP's middle. */
  hidden: number;
  layers: number;
  heads: number;
  epsilon: number;
  /** Queries look at the image in every so many-th layer, from the first on. */
  frequency: number;
  /** How many there are. */
  queries: number;
  /** Of texts; matter where the Q-Former reads any. */
  vocabulary: number;
  positions: number;
}

/** Images' states, [images, positions, width], to look at. `qformer`: the module that has `encoder`. */
export const imageSource = (
  graph: Graph,
  qformer: Weights,
  config: QFormerConfig,
  states: Value,
  width: number,
): Source => ({
  groups: sizeOf(graph, states, 0),
  mask: null,
  memories: Array.from({ length: config.layers }, (_, i) => {
    if (i % config.frequency !== 0) return null;
    const attention = qformer.at(`encoder.layer.${i}.crossattention.attention`);
    const layer = (name: string) => linearOf(attention.at(name), width, config.width);
    return memoryOf(graph, states, layer("key"), layer("value"), config.heads);
  }),
});

/** The queries, `query_tokens` in `weights`, for so many rows, int64 [1]: [rows, queries, width]. */
export function queryTokens(graph: Graph, weights: Weights, { queries, width }: QFormerConfig, rows: Value): Value {
  const shape = graph.op("Concat", [rows, graph.int64([queries, width])], { axis: int(0) });
  return graph.op("Expand", [weights.tensor("query_tokens", [1, queries, width]), shape]);
}

/** Texts, `ids` int64 [rows, tokens], as embeddings: [rows, tokens, width]. `weights`: the module `embeddings`. */
export function textEmbeddings(graph: Graph, weights: Weights, config: QFormerConfig, ids: Value): Value {
  const { vocabulary, positions, width } = config;
  const words = lookup(graph, weights, "word_embeddings.weight", [vocabulary, width], ids);
  const table = weights.tensor("position_embeddings.weight", [positions, width]);
  const some = graph.op("Slice", [table, graph.int64([0]), sizeOf(graph, ids, 1)]);
  return graph.op("Add", [words, some]);
}

/** Either of the two, or both. `mask`: int32 [rows, tokens], 0 for the text's padding. */
interface Inputs {
  queries?: { embedded: Value; source: Source };
  text?: { embedded: Value; mask: Value };
}

/** The states of the queries, [rows, queries, width], or without queries the text's, [rows, tokens, width]. */
export function qformer(graph: Graph, weights: Weights, config: QFormerConfig, { queries, text }: Inputs): Value {
  const { width, heads, hidden, epsilon } = config;
  const count = queries ? config.queries : 0;
  const parts = [queries, text].filter((part) => part !== undefined).map(({ embedded }) => embedded);
  const mask = text ? maskOf(graph, text.mask, count) : null;
  let x = layerNorm(graph, joined(graph, parts), normOf(weights.at("layernorm"), width, epsilon));
  for (let i = 0; i < config.layers; i++) {
    const layer = weights.at(`encoder.layer.${i}`);
    const qkv = stackedLinear(layer.at("attention.attention"), ["query", "key", "value"], width, width);
    const context = selfAttention(graph, x, qkv, heads, { mask });
    const seen = denseAndNorm(graph, layer.at("attention.output"), { ...config, inputs: width }, context, x);
    const mlp = (x: Value, of: string) => {
      const middle = linearGelu(graph, x, linearOf(layer.at(`intermediate${of}.dense`), width, hidden));
      return denseAndNorm(graph, layer.at(`output${of}`), { ...config, inputs: hidden }, middle, x);
    };
    const [ofQueries, ofText] = split(graph, seen, count, text !== undefined);
    x = joined(graph, [
      ...(ofQueries ? [mlp(lookAtImage(graph, layer, config, ofQueries, queries!.source, i), "_query")] : []),
      // Of the last layer only the queries are wanted, where there are any.
      ...(ofText && !(ofQueries && i + 1 === config.layers) ? [mlp(ofText, "")] : []),
    ]);
  }
  return x;
}

function lookAtImage(
  graph: Graph,
  layer: Weights,
  config: QFormerConfig,
  x: Value,
  { memories, groups, mask }: Source,
  index: number,
): Value {
  const memory = memories[index];
  if (!memory) return x;
  const query = linearOf(layer.at("crossattention.attention.query"), config.width, config.width);
  const seen = crossAttention(graph, x, query, config.heads, { memory, groups, mask });
  return denseAndNorm(graph, layer.at("crossattention.output"), { ...config, inputs: config.width }, seen, x);
}

/** x, [rows, positions, width], as the queries' part and the text's. */
function split(graph: Graph, x: Value, queries: number, hasText: boolean): [Value | null, Value | null] {
  if (queries === 0) return [null, x];
  if (!hasText) return [x, null];
  const at = graph.int64([queries]);
  const part = (from: Value, to: Value) => graph.op("Slice", [x, from, to, graph.int64([1])]);
  return [part(graph.int64([0]), at), part(at, sizeOf(graph, x, 1))];
}

/** int32 [rows, queries + tokens]: queries are seen by all. */
function maskOf(graph: Graph, text: Value, queries: number): Value {
  if (queries === 0) return text;
  const shape = graph.op("Concat", [sizeOf(graph, text, 0), graph.int64([queries])], { axis: int(0) });
  const ones = cast(graph, graph.op("Expand", [graph.int64([1]), shape]), "int32");
  return graph.op("Concat", [ones, text], { axis: int(1) });
}

const joined = (graph: Graph, parts: readonly Value[]): Value =>
  parts.length === 1 ? parts[0]! : graph.op("Concat", parts, { axis: int(1) });

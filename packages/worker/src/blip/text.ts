/** BLIP's text transformer: as an encoder of whole texts, and as a decoder that makes a text token by token. */
import {
  addAndNorm,
  cachedSelfAttention,
  crossAttention,
  type Linear,
  layerNorm,
  linear,
  linearGelu,
  linearOf,
  type Memory,
  normOf,
  selfAttention,
  splitHeads,
  stackedLinear,
} from "./blocks.ts";
import type { TextConfig } from "./config.ts";
import { dataType, type Graph, int, ints, type Value } from "./onnx/graph.ts";
import { loop } from "./onnx/loop.ts";
import type { Weights } from "./weights.ts";

/** What the rows look at besides each other: an image's states, or a question's. */
export interface Source {
  /** Each layer's memory. */
  memories: readonly Memory[];
  /** int64 [1]: how many things there are to look at. Each has the same number of rows. */
  groups: Value;
  /** int32 [groups, positions]: 0 where there is nothing; null where there is something everywhere. */
  mask: Value | null;
}

/** Images' states, [images, positions, width], to look at. `bert`: the module that has `encoder` and `embeddings`. */
export function imageSource(graph: Graph, bert: Weights, config: TextConfig, states: Value, width: number): Source {
  const groups = graph.op("Shape", [states], { start: int(0), end: int(1) });
  const memories = bert.rounded
    ? memoriesOneByOne(graph, bert.byColumns, config, { states, width, images: graph.op("Squeeze", [groups]) })
    : memoriesOf(graph, bert, config, states, width);
  return { memories, groups, mask: null };
}

/** Questions' states, [questions, tokens, width], to look at; `mask` is 0 for padding. */
export function questionSource(graph: Graph, bert: Weights, config: TextConfig, states: Value, mask: Value): Source {
  const groups = graph.op("Shape", [states], { start: int(0), end: int(1) });
  return { memories: memoriesOf(graph, bert, config, states, config.width), groups, mask };
}

/** `states` as each layer's keys and values: computed once, used by every row and token. */
const memoriesOf = (graph: Graph, bert: Weights, config: TextConfig, states: Value, width: number): Memory[] =>
  Array.from({ length: config.layers }, (_, i) => {
    const heads = (layer: Linear) => splitHeads(graph, states, layer, config.heads);
    return { keys: heads(keysOf(bert, config, i, width)), values: heads(valuesOf(bert, config, i, width)) };
  });

/**
 * The same for one image after the other, which is how 8 bits are fastest (see rounding.ts): of a batch of 8 captions, the
 * keys and values of the images are a seventh of the work.
 */
function memoriesOneByOne(
  graph: Graph,
  bert: Weights,
  config: TextConfig,
  { states, width, images }: { states: Value; width: number; images: Value },
): Memory[] {
  const { heads, width: textWidth } = config;
  const layers = Array.from({ length: config.layers }, (_, i) => [
    keysOf(bert, config, i, width),
    valuesOf(bert, config, i, width),
  ]);
  const { kept } = loop(graph, "image", images, [], (body, turn) => {
    const image = body.op("Gather", [states, turn], { axis: int(0) });
    const parts = layers.flat().map((layer) => {
      const split = body.op("Reshape", [linear(body, image, layer), body.int64([0, heads, -1])]);
      const value = body.op("Transpose", [split], { perm: ints(1, 0, 2) });
      return { value, type: body.real, shape: [heads, "positions", textWidth / heads] };
    });
    return { again: body.op("Cast", [body.int64(1)], { to: dataType("bool") }), state: [], kept: parts };
  });
  return layers.map((_, i) => ({ keys: kept[2 * i]!, values: kept[2 * i + 1]! }));
}

const keysOf = (bert: Weights, { width }: TextConfig, layer: number, inputs: number): Linear =>
  linearOf(bert.at(`encoder.layer.${layer}.crossattention.self.key`), inputs, width);
const valuesOf = (bert: Weights, { width }: TextConfig, layer: number, inputs: number): Linear =>
  linearOf(bert.at(`encoder.layer.${layer}.crossattention.self.value`), inputs, width);

/**
 * Whole texts, `ids` int64 [rows, tokens]; the result is [rows, tokens, width]. `mask`, int32 [rows, tokens], is 0 for
 * padding, which stands at the end. `causal`: no token sees a later one. Without a source the texts are all there is.
 */
export function encodeText(
  graph: Graph,
  bert: Weights,
  config: TextConfig,
  { ids, mask, causal = false, source }: { ids: Value; mask: Value | null; causal?: boolean; source: Source | null },
): Value {
  const tokens = graph.op("Shape", [ids], { start: int(1), end: int(2) });
  const table = bert.tensor("embeddings.position_embeddings.weight", [config.positions, config.width]);
  const positions = graph.op("Slice", [table, graph.int64([0]), tokens]);
  let x = embeddings(graph, bert.at("embeddings"), config, ids, positions);
  for (let i = 0; i < config.layers; i++) {
    const layer = bert.at(`encoder.layer.${i}`);
    const context = selfAttention(graph, x, qkvOf(layer, config), config.heads, { mask, causal });
    x = afterSelfAttention(graph, layer, config, { context, x, source, index: i });
  }
  return x;
}

/**
 * One token more, int64 [rows, 1], at `position`, int64 []. `past` has each layer's memory of the tokens before it;
 * `present` has this one added. `logits`, [rows, 1, vocabulary]: what may follow.
 */
export function decodeToken(
  graph: Graph,
  decoder: Weights,
  config: TextConfig,
  { token, position, past, source }: { token: Value; position: Value; past: readonly Memory[]; source: Source },
): { logits: Value; present: Memory[] } {
  const bert = decoder.at("bert");
  const present: Memory[] = [];
  const table = bert.tensor("embeddings.position_embeddings.weight", [config.positions, config.width]);
  let x = embeddings(graph, bert.at("embeddings"), config, token, graph.op("Gather", [table, position]));
  for (let i = 0; i < config.layers; i++) {
    const layer = bert.at(`encoder.layer.${i}`);
    const self = cachedSelfAttention(graph, x, qkvOf(layer, config), config.heads, past[i]!);
    present.push(self.present);
    x = afterSelfAttention(graph, layer, config, { context: self.context, x, source, index: i });
  }
  return { logits: languageHead(graph, decoder, config, x), present };
}

/** Logits of the token after each position of x. */
export function languageHead(graph: Graph, decoder: Weights, config: TextConfig, x: Value): Value {
  const { width, vocabulary, epsilon } = config;
  const head = decoder.at("cls.predictions");
  const dense = linearGelu(graph, x, linearOf(head.at("transform.dense"), width, width));
  const normed = layerNorm(graph, dense, normOf(head.at("transform.LayerNorm"), width, epsilon));
  // A tied head is not stored (transformers): its weight is the word embeddings', its bias that of `predictions`.
  const weight = head.has("decoder.weight")
    ? head.matrix(["decoder.weight"], vocabulary, width)
    : decoder.at("bert.embeddings").matrix(["word_embeddings.weight"], vocabulary, width);
  const bias = head.tensor(head.has("decoder.bias") ? "decoder.bias" : "bias", [vocabulary]);
  return linear(graph, normed, { inputs: width, outputs: vocabulary, weight, bias });
}

/** The rest of a layer: what self-attention found, the source, the MLP. */
function afterSelfAttention(
  graph: Graph,
  layer: Weights,
  config: TextConfig,
  { context, x, source, index }: { context: Value; x: Value; source: Source | null; index: number },
): Value {
  const { width, hidden, heads } = config;
  let out = output(graph, layer.at("attention.output"), config, width, context, x);
  if (source) {
    const { memories, groups, mask } = source;
    const query = linearOf(layer.at("crossattention.self.query"), width, width);
    const seen = crossAttention(graph, out, query, heads, { memory: memories[index]!, groups, mask });
    out = output(graph, layer.at("crossattention.output"), config, width, seen, out);
  }
  const middle = linearGelu(graph, out, linearOf(layer.at("intermediate.dense"), width, hidden));
  return output(graph, layer.at("output"), config, hidden, middle, out);
}

function embeddings(graph: Graph, module: Weights, config: TextConfig, ids: Value, positions: Value): Value {
  const table = module.tensor("word_embeddings.weight", [config.vocabulary, config.width]);
  const sum = graph.op("Add", [graph.op("Gather", [table, ids]), positions]);
  return layerNorm(graph, sum, normOf(module.at("LayerNorm"), config.width, config.epsilon));
}

/** The end of each block: LayerNorm(residual + dense(x)). Post-LN, so only the norm goes on. */
function output(graph: Graph, module: Weights, config: TextConfig, inputs: number, x: Value, residual: Value): Value {
  const dense = linearOf(module.at("dense"), inputs, config.width);
  const norm = normOf(module.at("LayerNorm"), config.width, config.epsilon);
  return addAndNorm(graph, x, dense, residual, norm).normed;
}

/** Query, key and value as one layer, as the vision transformer has them. */
const qkvOf = (layer: Weights, { width }: TextConfig): Linear =>
  stackedLinear(layer.at("attention.self"), ["query", "key", "value"], width, width);

/** BERT as BLIP has it: an encoder of whole texts, and a decoder that makes a text, both of which can look at images. */
import {
  cachedSelfAttention,
  crossAttention,
  denseAndNorm,
  type Linear,
  lastPositions,
  layerNorm,
  linear,
  linearGelu,
  linearOf,
  lookup,
  type Memory,
  memoryOf,
  normOf,
  type Source,
  selfAttention,
  sizeOf,
  stackedLinear,
} from "./blocks.ts";
import type { Decoder } from "./decoding/decoder.ts";
import { dataType, type Graph, int, ints, type Value } from "./onnx/graph.ts";
import { loop } from "./onnx/loop.ts";
import type { Weights } from "./weights.ts";

export interface BertConfig {
  width: number;
  /** Width of the MLP's middle. */
  hidden: number;
  layers: number;
  heads: number;
  epsilon: number;
  vocabulary: number;
  /** The most tokens that a text can have, the start token included. */
  positions: number;
}

/** Images' states, [images, positions, width], to look at. `bert`: the module that has `encoder` and `embeddings`. */
export function imageSource(graph: Graph, bert: Weights, config: BertConfig, states: Value, width: number): Source {
  const groups = sizeOf(graph, states, 0);
  const memories = bert.rounded
    ? memoriesOneByOne(graph, bert.byColumns, config, { states, width, images: graph.op("Squeeze", [groups]) })
    : memoriesOf(graph, bert, config, states, width);
  return { memories, groups, mask: null };
}

/** Questions' states, [questions, tokens, width], to look at; `mask` is 0 for padding. */
export function questionSource(graph: Graph, bert: Weights, config: BertConfig, states: Value, mask: Value): Source {
  return { memories: memoriesOf(graph, bert, config, states, config.width), groups: sizeOf(graph, states, 0), mask };
}

const memoriesOf = (graph: Graph, bert: Weights, config: BertConfig, states: Value, width: number): Memory[] =>
  Array.from({ length: config.layers }, (_, i) =>
    memoryOf(graph, states, keysOf(bert, config, i, width), valuesOf(bert, config, i, width), config.heads),
  );

/**
 * Memories of one image after the other, which is how 8 bits are fastest (see rounding.ts): of a batch of 8 captions, the
 * keys and values of the images are a seventh of the work.
 */
function memoriesOneByOne(
  graph: Graph,
  bert: Weights,
  config: BertConfig,
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

const keysOf = (bert: Weights, { width }: BertConfig, layer: number, inputs: number): Linear =>
  linearOf(bert.at(`encoder.layer.${layer}.crossattention.self.key`), inputs, width);
const valuesOf = (bert: Weights, { width }: BertConfig, layer: number, inputs: number): Linear =>
  linearOf(bert.at(`encoder.layer.${layer}.crossattention.self.value`), inputs, width);

/**
 * Whole texts, `ids` int64 [rows, tokens]; the result is [rows, tokens, width]. `mask`, int32 [rows, tokens], is 0 for
 * padding, which stands at the end. `causal`: no token sees a later one. Without a source the texts are all there is.
 */
export function encodeText(
  graph: Graph,
  bert: Weights,
  config: BertConfig,
  { ids, mask, causal = false, source }: { ids: Value; mask: Value | null; causal?: boolean; source: Source | null },
): Value {
  const positions = positionsAt(graph, bert, config, { from: graph.int64([0]), to: sizeOf(graph, ids, 1) });
  let x = embeddings(graph, bert.at("embeddings"), config, wordsOf(graph, bert, config, ids), positions);
  for (let i = 0; i < config.layers; i++) {
    const layer = bert.at(`encoder.layer.${i}`);
    const context = selfAttention(graph, x, qkvOf(layer, config), config.heads, { mask, causal });
    x = afterSelfAttention(graph, layer, config, { context, x, source, index: i });
  }
  return x;
}

/** Token ids of a BERT decoder: what ends a text, and what follows the end. */
export interface Ends {
  end: number;
  pad: number;
}

/** Makes texts that begin with `prompt`, int64 [groups, tokens], one for each thing in `source`. */
export function bertDecoder(
  graph: Graph,
  weights: Weights,
  config: BertConfig & Ends,
  { prompt, source }: { prompt: Value; source: Source },
): Decoder {
  const { vocabulary, end, pad, layers, heads, width } = config;
  const bert = weights.at("bert");
  const embed = (graph: Graph, tokens: Value) => wordsOf(graph, bert, config, tokens);
  return {
    ...{ vocabulary, end, pad, layers, heads, width },
    groups: source.groups,
    start: { embedded: embed(graph, prompt), mask: null, tokens: prompt },
    embed,
    step(graph, { embedded, past }) {
      const from = sizeOf(graph, past[0]!.keys, 2);
      const to = graph.op("Add", [from, sizeOf(graph, embedded, 1)]);
      const positions = positionsAt(graph, bert, config, { from, to });
      const present: Memory[] = [];
      let x = embeddings(graph, bert.at("embeddings"), config, embedded, positions);
      for (let i = 0; i < layers; i++) {
        const layer = bert.at(`encoder.layer.${i}`);
        const qkv = qkvOf(layer, config);
        const self = cachedSelfAttention(graph, x, qkv, heads, { past: past[i]!, mask: null });
        present.push(self.present);
        x = afterSelfAttention(graph, layer, config, { context: self.context, x, source, index: i });
      }
      const logits = languageHead(graph, weights, config, lastPositions(graph, x));
      return { logits: graph.op("Squeeze", [graph.toFloat32(logits), graph.int64([1])]), present };
    },
  };
}

/** Logits of the token after each position of x. */
export function languageHead(graph: Graph, decoder: Weights, config: BertConfig, x: Value): Value {
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
  config: BertConfig,
  { context, x, source, index }: { context: Value; x: Value; source: Source | null; index: number },
): Value {
  const { width, hidden, heads } = config;
  let out = denseAndNorm(graph, layer.at("attention.output"), { ...config, inputs: width }, context, x);
  if (source) {
    const { memories, groups, mask } = source;
    const query = linearOf(layer.at("crossattention.self.query"), width, width);
    const seen = crossAttention(graph, out, query, heads, { memory: memories[index]!, groups, mask });
    out = denseAndNorm(graph, layer.at("crossattention.output"), { ...config, inputs: width }, seen, out);
  }
  const middle = linearGelu(graph, out, linearOf(layer.at("intermediate.dense"), width, hidden));
  return denseAndNorm(graph, layer.at("output"), { ...config, inputs: hidden }, middle, out);
}

const wordsOf = (graph: Graph, bert: Weights, { vocabulary, width }: BertConfig, ids: Value): Value =>
  lookup(graph, bert, "embeddings.word_embeddings.weight", [vocabulary, width], ids);

/** The embeddings of positions [from, to), both int64 [1]. */
function positionsAt(
  graph: Graph,
  bert: Weights,
  { positions, width }: BertConfig,
  { from, to }: { from: Value; to: Value },
): Value {
  const table = bert.tensor("embeddings.position_embeddings.weight", [positions, width]);
  return graph.op("Slice", [table, from, to]);
}

const embeddings = (graph: Graph, module: Weights, config: BertConfig, words: Value, positions: Value): Value =>
  layerNorm(graph, graph.op("Add", [words, positions]), normOf(module.at("LayerNorm"), config.width, config.epsilon));

/** Query, key and value as one layer, as the vision transformer has them. */
const qkvOf = (layer: Weights, { width }: BertConfig): Linear =>
  stackedLinear(layer.at("attention.self"), ["query", "key", "value"], width, width);

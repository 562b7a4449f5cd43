/** BLIP's text transformer as a decoder: one token at a time, looking at an image. */
import {
  addAndNorm,
  cachedSelfAttention,
  crossAttention,
  layerNorm,
  linear,
  linearGelu,
  linearOf,
  type Memory,
  normOf,
  splitHeads,
} from "./blocks.ts";
import type { TextConfig } from "./config.ts";
import type { Graph, Value } from "./onnx/graph.ts";
import type { Weights } from "./weights.ts";

/** The image, [batch, positions, imageWidth], as each layer's keys and values: computed once, used at every token. */
export function imageMemory(graph: Graph, weights: Weights, config: TextConfig, imageWidth: number, image: Value) {
  return Array.from({ length: config.layers }, (_, i): Memory => {
    const attention = weights.at(`bert.encoder.layer.${i}.crossattention.self`);
    const heads = (name: string) =>
      splitHeads(graph, image, linearOf(attention.at(name), imageWidth, config.width), config.heads);
    return { keys: heads("key"), values: heads("value") };
  });
}

/**
 * Looks at `token`, int64 [batch, 1], standing at `position`, int64 []. `past` has each layer's memory of the tokens
 * before it; `present` has this one added. `logits`, float32 [batch, 1, vocabulary]: what may follow.
 */
export function decodeToken(
  graph: Graph,
  weights: Weights,
  config: TextConfig,
  {
    token,
    position,
    past,
    image,
  }: { token: Value; position: Value; past: readonly Memory[]; image: readonly Memory[] },
): { logits: Value; present: Memory[] } {
  const { width, hidden, heads } = config;
  const present: Memory[] = [];
  let x = embeddings(graph, weights.at("bert.embeddings"), config, token, position);
  for (let i = 0; i < config.layers; i++) {
    const layer = weights.at(`bert.encoder.layer.${i}`);
    const self = cachedSelfAttention(graph, x, qkvOf(layer.at("attention.self"), width), heads, past[i]!);
    present.push(self.present);
    x = output(graph, layer.at("attention.output"), config, width, self.context, x);

    const query = linearOf(layer.at("crossattention.self.query"), width, width);
    const cross = crossAttention(graph, x, query, heads, image[i]!);
    x = output(graph, layer.at("crossattention.output"), config, width, cross, x);

    const middle = linearGelu(graph, x, linearOf(layer.at("intermediate.dense"), width, hidden));
    x = output(graph, layer.at("output"), config, hidden, middle, x);
  }
  return { logits: languageHead(graph, weights, config, x), present };
}

function embeddings(graph: Graph, weights: Weights, config: TextConfig, token: Value, position: Value): Value {
  const word = graph.op("Gather", [wordEmbeddings(weights, config), token]);
  const table = weights.tensor("position_embeddings.weight", [config.positions, config.width]);
  const sum = graph.op("Add", [word, graph.op("Gather", [table, position])]);
  return layerNorm(graph, sum, normOf(weights.at("LayerNorm"), config.width, config.epsilon));
}

/** The end of each block: LayerNorm(residual + dense(x)). Post-LN, so only the norm goes on. */
function output(graph: Graph, module: Weights, config: TextConfig, inputs: number, x: Value, residual: Value): Value {
  const dense = linearOf(module.at("dense"), inputs, config.width);
  const norm = normOf(module.at("LayerNorm"), config.width, config.epsilon);
  return addAndNorm(graph, x, dense, residual, norm).normed;
}

/** Logits of the token after each position of x. */
function languageHead(graph: Graph, weights: Weights, config: TextConfig, x: Value): Value {
  const { width, vocabulary, epsilon } = config;
  const head = weights.at("cls.predictions");
  const dense = linearGelu(graph, x, linearOf(head.at("transform.dense"), width, width));
  const normed = layerNorm(graph, dense, normOf(head.at("transform.LayerNorm"), width, epsilon));
  // A tied head is not stored (transformers): its weight is the word embeddings', its bias that of `predictions`.
  const weight = head.has("decoder.weight")
    ? head.tensor("decoder.weight", [vocabulary, width])
    : wordEmbeddings(weights.at("bert.embeddings"), config);
  const bias = head.tensor(head.has("decoder.bias") ? "decoder.bias" : "bias", [vocabulary]);
  return linear(graph, normed, { weight, bias });
}

const wordEmbeddings = (embeddings: Weights, { vocabulary, width }: TextConfig): Value =>
  embeddings.tensor("word_embeddings.weight", [vocabulary, width]);

/** Query, key and value as one layer, as the vision transformer has them. */
function qkvOf(attention: Weights, width: number) {
  const three = (kind: string) => ["query", "key", "value"].map((name) => `${name}.${kind}`);
  return {
    weight: attention.stacked(three("weight"), [width, width]),
    bias: attention.stacked(three("bias"), [width]),
  };
}

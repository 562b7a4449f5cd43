/** OPT (Zhang et al. 2022), the language model of BLIP-2: it goes on from what the Q-Former saw and a prompt. */
import {
  cachedSelfAttention,
  cast,
  type Linear,
  lastPositions,
  linearOf,
  linearRelu,
  lookup,
  type Memory,
  type Norm,
  normOf,
  numbered,
  type PreNormLayer,
  preNormLayers,
  product,
  selfAttention,
  sizeOf,
  stackedLinear,
} from "./blocks.ts";
import type { Decoder } from "./decoding/decoder.ts";
import { type Graph, int, type Value } from "./onnx/graph.ts";
import type { Weights } from "./weights.ts";

export interface OptConfig {
  width: number;
  /** Width of the MLP's middle. */
  hidden: number;
  layers: number;
  heads: number;
  vocabulary: number;
  /** The most positions that image and text can take together. */
  positions: number;
  /** Token ids: what ends a text, and what follows the end. */
  end: number;
  pad: number;
  /** Whether the head has the weights of the token embeddings. */
  tied: boolean;
}

/** torch's LayerNorm default, which OPT keeps. */
const EPSILON = 1e-5;
/** OPT's table of positions begins with two rows that nothing uses. */
const FIRST_POSITION = 2;

/** What texts go on from. */
export interface Before {
  /** [groups, positions, width]: of images, as OPT sees them. */
  images: Value;
  /** int64 [groups, tokens]: the start token and the prompt, padded at the front with tokens that it has. */
  prompt: Value;
  /** int32 [groups, tokens]: 0 for padding. */
  promptMask: Value;
}

/**
 * `weights`: the module with `model` and `lm_head`. Padding stands between image and prompt, so that all prompts end at
 * the same position and all images begin at the first; a token's position is counted without it.
 */
export function optDecoder(graph: Graph, weights: Weights, config: OptConfig, before: Before): Decoder {
  const { vocabulary, end, pad, layers, heads, width } = config;
  const embed = (graph: Graph, tokens: Value) => embeddings(graph, weights, config, tokens);
  return {
    ...{ vocabulary, end, pad, layers, heads, width },
    groups: sizeOf(graph, before.images, 0),
    start: {
      embedded: graph.op("Concat", [before.images, embed(graph, before.prompt)], { axis: int(1) }),
      mask: wholeMask(graph, before),
      // transformers penalizes the token that stands for the image as well, which no text ever has.
      tokens: before.prompt,
    },
    embed,
    step(graph, { embedded, mask, past }) {
      const present: Memory[] = [];
      const places = lastPositions(graph, placesOf(graph, mask!), sizeOf(graph, embedded, 1));
      const x = graph.op("Add", [embedded, positionsAt(graph, weights, config, places)]);
      const states = transformer(graph, weights, config, x, (x, qkv, i) => {
        const self = cachedSelfAttention(graph, x, qkv, heads, { past: past[i]!, mask });
        present.push(self.present);
        return self.context;
      });
      const logits = languageHead(graph, weights, config, lastPositions(graph, states));
      return { logits: graph.op("Squeeze", [graph.toFloat32(logits), graph.int64([1])]), present };
    },
  };
}

/**
 * Log-probabilities of the token after each of `answers`' (int64 [answers, tokens]), float32 [groups, answers, tokens,
 * vocabulary]. The first token of each answer is not looked at: the prompt's last one stands in its place.
 *
 * Image and prompt are there once per group, followed by all answers. A token sees those, and its own answer's before it.
 */
export function optLikelihoods(
  graph: Graph,
  weights: Weights,
  config: OptConfig,
  { images, prompt, promptMask }: Before,
  answers: Value,
): Value {
  const allButLast = (x: Value) => graph.op("Slice", [x, graph.int64([0]), graph.int64([-1]), graph.int64([1])]);
  const mask = wholeMask(graph, { images, prompt: allButLast(prompt), promptMask: allButLast(promptMask) });
  const [groups, count, length] = [sizeOf(graph, images, 0), sizeOf(graph, answers, 0), sizeOf(graph, answers, 1)];
  const tokens = packed(graph, lastPositions(graph, prompt), answers);
  const parts = [
    images,
    embeddings(graph, weights, config, allButLast(prompt)),
    embeddings(graph, weights, config, tokens),
  ];
  const embedded = graph.op("Concat", parts, { axis: int(1) });

  const before = placesOf(graph, mask);
  const offsets = graph.op("Reshape", [
    graph.op("Expand", [numbered(graph, length), graph.op("Shape", [answers])]),
    graph.int64([1, -1]),
  ]);
  const ofAnswers = graph.op("Add", [graph.op("Add", [lastPositions(graph, before), graph.int64([1])]), offsets]);
  const places = graph.op("Concat", [before, ofAnswers], { axis: int(1) });
  const bias = biasOf(graph, mask, { count, length });
  const x = graph.op("Add", [embedded, positionsAt(graph, weights, config, places)]);
  const states = transformer(graph, weights, config, x, (x, qkv) =>
    selfAttention(graph, x, qkv, config.heads, { bias }),
  );

  const own = lastPositions(graph, states, graph.op("Mul", [count, length]));
  const logits = graph.toFloat32(languageHead(graph, weights, config, own));
  const shape = graph.op("Concat", [groups, count, length, graph.int64([config.vocabulary])], { axis: int(0) });
  return graph.op("Reshape", [graph.op("LogSoftmax", [logits], { axis: int(-1) }), shape]);
}

/** All answers of all groups one after the other, int64 [groups, answers × tokens], with `first`, [groups, 1], in front of each. */
function packed(graph: Graph, first: Value, answers: Value): Value {
  const isFirst = graph.op("Equal", [numbered(graph, sizeOf(graph, answers, 1)), graph.int64(0)]);
  const tokens = graph.op("Where", [isFirst, graph.op("Unsqueeze", [first, graph.int64([1])]), answers]);
  return graph.op("Reshape", [tokens, graph.int64([0, -1])]);
}

/**
 * [groups, 1, all, all]: 0 where a position (second to last axis) sees another (last axis). Those of image and prompt,
 * whose `mask` is int32 [groups, positions], see those before; those of an answer see these and its own before.
 */
function biasOf(graph: Graph, mask: Value, { count, length }: { count: Value; length: Value }): Value {
  const prefix = sizeOf(graph, mask, 1);
  const all = graph.op("Add", [prefix, graph.op("Mul", [count, length])]);
  const numbers = numbered(graph, all);
  const column = graph.op("Unsqueeze", [numbers, graph.int64([1])]);
  const isBefore = graph.op("Not", [graph.op("Greater", [numbers, column])]);
  const answerOf = (numbers: Value) => graph.op("Div", [graph.op("Sub", [numbers, prefix]), length]);
  const inPrefix = graph.op("Less", [numbers, prefix]);
  const sameAnswer = graph.op("Equal", [answerOf(numbers), answerOf(column)]);
  const sees = graph.op("And", [isBefore, graph.op("Or", [inPrefix, sameAnswer])]);
  const own = graph.op("Expand", [
    cast(graph, graph.int64([1]), "int32"),
    graph.op("Concat", [sizeOf(graph, mask, 0), graph.op("Mul", [count, length])], { axis: int(0) }),
  ]);
  const there = cast(graph, graph.op("Concat", [mask, own], { axis: int(1) }), "bool");
  const both = graph.op("And", [sees, graph.op("Unsqueeze", [there, graph.int64([1, 2])])]);
  return graph.op("Where", [both, graph.reals([0], []), graph.reals([UNSEEN], [])]);
}

/** Far below every logit, and within float16. */
const UNSEEN = -60_000;

/** int32 [groups, image positions + tokens]. */
function wholeMask(graph: Graph, { images, promptMask }: Before): Value {
  const shape = graph.op("Shape", [images], { start: int(0), end: int(2) });
  const ones = cast(graph, graph.op("Expand", [graph.int64([1]), shape]), "int32");
  return graph.op("Concat", [ones, promptMask], { axis: int(1) });
}

/** int64, as the mask: 0, 1, 2, … where padding is not counted. */
const placesOf = (graph: Graph, mask: Value): Value =>
  graph.op("Sub", [graph.op("CumSum", [cast(graph, mask, "int64"), graph.int64(1)]), graph.int64([1])]);

type Attend = (x: Value, qkv: Linear, layer: number) => Value;

function transformer(graph: Graph, weights: Weights, config: OptConfig, x: Value, attend: Attend): Value {
  const { width, hidden, layers } = config;
  const decoder = weights.at("model.decoder").large;
  const norm = (name: string): Norm => normOf(decoder.at(name), width, EPSILON);
  const all = Array.from({ length: layers }, (_, i): PreNormLayer => {
    const name = `layers.${i}`;
    const layer = decoder.at(name);
    const qkv = stackedLinear(layer.at("self_attn"), ["q_proj", "k_proj", "v_proj"], width, width);
    return {
      attend: (x) => attend(x, qkv, i),
      projection: linearOf(layer.at("self_attn.out_proj"), width, width),
      middleNorm: norm(`${name}.final_layer_norm`),
      first: linearOf(layer.at("fc1"), width, hidden),
      activation: linearRelu,
      second: linearOf(layer.at("fc2"), hidden, width),
      nextNorm: norm(i + 1 < layers ? `layers.${i + 1}.self_attn_layer_norm` : "final_layer_norm"),
    };
  });
  return preNormLayers(graph, x, norm("layers.0.self_attn_layer_norm"), all);
}

const embeddings = (graph: Graph, weights: Weights, { vocabulary, width }: OptConfig, ids: Value): Value =>
  lookup(graph, weights, EMBEDDINGS, [vocabulary, width], ids);
const EMBEDDINGS = "model.decoder.embed_tokens.weight";

/** `places`: int64, from 0 on. */
const positionsAt = (graph: Graph, weights: Weights, { positions, width }: OptConfig, places: Value): Value =>
  graph.op("Gather", [
    weights.tensor("model.decoder.embed_positions.weight", [positions + FIRST_POSITION, width]),
    graph.op("Add", [places, graph.int64([FIRST_POSITION])]),
  ]);

/** In 4 bits too the head keeps 8: it decides between near words. */
const languageHead = (graph: Graph, weights: Weights, { vocabulary, width, tied }: OptConfig, x: Value): Value =>
  product(graph, x, {
    inputs: width,
    outputs: vocabulary,
    weight: weights.matrix([tied ? EMBEDDINGS : "lm_head.weight"], vocabulary, width),
  });

/**
 * BLIP-2 (Li et al. 2023): a vision transformer, a Q-Former that boils an image down to a few vectors, and OPT, which
 * goes on from these as if they were the text's beginning. The Q-Former alone compares images with texts.
 */
import * as z from "zod";
import { cast, exactLinearOf, firstPosition, linear, sizeOf } from "../blocks.ts";
import {
  type Builds,
  embeddingOutput,
  encodedImages,
  generating,
  matchOutput,
  promptInput,
  rankInputs,
  rankOutputs,
  statesInput,
  statesOutput,
  textInputs,
} from "../graphs.ts";
import {
  checkActivation,
  checkHeads,
  epsilon,
  invalid,
  type Preprocessing,
  size,
  tokenId,
  unsupported,
  type VisionConfig,
  visionConfig,
  visionSchema,
} from "../images.ts";
import { type Graph, int, ints, type Value } from "../onnx/graph.ts";
import { type Before, type OptConfig, optDecoder, optLikelihoods } from "../opt.ts";
import { imageSource, type QFormerConfig, qformer, queryTokens, textEmbeddings } from "../qformer.ts";
import type { Weights } from "../weights.ts";
import { type Described, family } from "./family.ts";

/** With the defaults of transformers' Blip2Config, Blip2VisionConfig, Blip2QFormerConfig and OPTConfig. */
const schema = z.object({
  num_query_tokens: size.default(32),
  image_text_hidden_size: size.default(256),
  vision_config: visionSchema({
    width: 1408,
    hidden: 6144,
    layers: 39,
    heads: 16,
    size: 224,
    patch: 14,
    epsilon: 1e-6,
  }),
  qformer_config: z
    .object({
      vocab_size: size.default(30522),
      hidden_size: size.default(768),
      intermediate_size: size.default(3072),
      num_hidden_layers: size.default(12),
      num_attention_heads: size.default(12),
      max_position_embeddings: size.default(512),
      hidden_act: z.string().default("gelu"),
      layer_norm_eps: epsilon.default(1e-12),
      cross_attention_frequency: size.default(2),
    })
    .prefault({}),
  text_config: z
    .object({
      model_type: z.string().default("opt"),
      vocab_size: size.default(50272),
      hidden_size: size.default(768),
      num_hidden_layers: size.default(12),
      ffn_dim: size.default(3072),
      max_position_embeddings: size.default(2048),
      num_attention_heads: size.default(12),
      activation_function: z.string().default("relu"),
      word_embed_proj_dim: size.nullish(),
      do_layer_norm_before: z.boolean().default(true),
      _remove_final_layer_norm: z.boolean().default(false),
      enable_bias: z.boolean().default(true),
      layer_norm_elementwise_affine: z.boolean().default(true),
      tie_word_embeddings: z.boolean().default(true),
      bos_token_id: tokenId.default(2),
      eos_token_id: tokenId.default(2),
      pad_token_id: tokenId.default(1),
    })
    .prefault({}),
});
type Json = z.infer<typeof schema>;

interface Config {
  vision: VisionConfig;
  queries: QFormerConfig;
  preprocessing: Preprocessing;
}

export const blip2 = family(
  ["Blip2ForConditionalGeneration", "Blip2ForImageTextRetrieval"],
  schema,
  (json, architecture, file) => {
    const vision = visionConfig(json.vision_config, `${file}: vision_config`);
    const queries = qformerConfig(json, `${file}: qformer_config`);
    return architecture === "Blip2ForConditionalGeneration"
      ? generator(json, vision, queries, file)
      : comparer(json, vision, queries);
  },
);

/** Blip2ForConditionalGeneration. */
function generator(json: Json, vision: VisionConfig, queries: QFormerConfig, file: string): Described {
  const text = optConfig(json, `${file}: text_config`);
  const { bos_token_id: start } = json.text_config;
  const { vocabulary, end } = text;
  const decoder = (graph: Graph, weights: Weights) =>
    optDecoder(graph, weights.at("language_model"), text, beforeText(graph, text));
  return {
    vision,
    // The image takes positions of its own.
    positions: text.positions - queries.queries,
    generation: { vocabulary, start, end, image: "before", template: "Question: {question} Answer:" },
    tokenizer: { kind: "bpe", vocabulary, start, end },
    builds: (preprocessing) => ({
      vision: (graph, weights) => imagesForText(graph, weights, { vision, queries, preprocessing }, text.width),
      ...generating(decoder),
      rank(graph, weights) {
        const inputs = rankInputs(graph);
        const before = beforeText(graph, text);
        const likelihoods = optLikelihoods(graph, weights.at("language_model"), text, before, inputs.answers);
        rankOutputs(graph, likelihoods, inputs, vocabulary);
      },
    }),
  };
}

/** Blip2ForImageTextRetrieval. */
function comparer(json: Json, vision: VisionConfig, queries: QFormerConfig): Described {
  const dimensions = json.image_text_hidden_size;
  return {
    vision,
    positions: queries.positions,
    generation: null,
    tokenizer: { kind: "bert", vocabulary: queries.vocabulary, end: null },
    builds: (preprocessing): Builds => ({
      vision: (graph, weights) => statesAndEmbeddings(graph, weights, { vision, queries, preprocessing }, dimensions),
      match: (graph, weights) => match(graph, weights, queries, vision),
      text: (graph, weights) => textAlone(graph, weights, queries, dimensions),
    }),
  };
}

/** pixels → states: float32 [images, queries, width of the language model]: what it sees in place of tokens. */
function imagesForText(graph: Graph, weights: Weights, config: Config, width: number): void {
  const { queries } = config;
  const states = cast(graph, imageQueries(graph, weights, config, encodedImagesOf(graph, weights, config)), graph.real);
  const projected = linear(graph, states, exactLinearOf(weights.at("language_projection"), queries.width, width));
  statesOutput(graph, "states", projected, ["images", queries.queries, width]);
}

/** pixels → states, an image's patches; embedding: float32 [images, queries, dimensions], each of length 1. */
function statesAndEmbeddings(graph: Graph, weights: Weights, config: Config, dimensions: number): void {
  const { vision, queries } = config;
  const encoded = encodedImagesOf(graph, weights, config);
  statesOutput(graph, "states", encoded, ["images", 1 + vision.grid ** 2, vision.width]);
  const states = cast(graph, imageQueries(graph, weights, config, encoded), graph.real);
  const projected = linear(graph, states, exactLinearOf(weights.at("vision_projection"), queries.width, dimensions));
  embeddingOutput(graph, projected, ["images", queries.queries, dimensions]);
}

/** ids, mask → embedding: float32 [texts, dimensions], of length 1. Texts alone, without an image. */
function textAlone(graph: Graph, weights: Weights, config: QFormerConfig, dimensions: number): void {
  const { ids, mask } = textInputs(graph);
  const [wide, exact] = inFloat32(graph, weights);
  const embedded = textEmbeddings(wide, exact.at("embeddings"), config, ids);
  const states = qformer(wide, exact.at("qformer"), config, { text: { embedded, mask } });
  const first = cast(graph, firstPosition(graph, states), graph.real);
  const projected = linear(graph, first, exactLinearOf(weights.at("text_projection"), config.width, dimensions));
  embeddingOutput(graph, projected, ["texts", dimensions]);
}

/** states, ids, mask → probability: float32 [texts]: how likely it is that the text is of the image. */
function match(graph: Graph, weights: Weights, config: QFormerConfig, { width }: VisionConfig): void {
  const [wide, exact] = inFloat32(graph, weights);
  const states = statesInput(wide, ["images", "positions", width]);
  const { ids, mask } = textInputs(graph);
  const source = imageSource(wide, exact.at("qformer"), config, states, width);
  const embedded = queryTokens(wide, exact, config, sizeOf(wide, ids, 0));
  const text = { embedded: textEmbeddings(wide, exact.at("embeddings"), config, ids), mask };
  const seen = qformer(wide, exact.at("qformer"), config, { queries: { embedded, source }, text });
  const logits = linear(graph, cast(graph, seen, graph.real), exactLinearOf(weights.at("itm_head"), config.width, 2));
  matchOutput(graph, graph.op("ReduceMean", [logits], { axes: ints(1), keepdims: int(0) }));
}

const encodedImagesOf = (graph: Graph, weights: Weights, { vision, preprocessing }: Config): Value =>
  encodedImages(graph, weights, vision, preprocessing);

/** What the queries see in images alone, float32 [images, queries, width]. */
function imageQueries(graph: Graph, weights: Weights, { vision, queries: config }: Config, encoded: Value): Value {
  const [wide, exact] = inFloat32(graph, weights);
  const states = graph.toFloat32(encoded);
  const source = imageSource(wide, exact.at("qformer"), config, states, vision.width);
  const embedded = queryTokens(wide, exact, config, source.groups);
  return qformer(wide, exact.at("qformer"), config, { queries: { embedded, source } });
}

/** The Q-Former is float32 in every precision, as in transformers (`_keep_in_fp32_modules`); it is small. */
function inFloat32(graph: Graph, weights: Weights): [Graph, Weights] {
  const wide = graph.as("float32");
  return [wide, weights.exact(wide)];
}

function beforeText(graph: Graph, { width }: OptConfig): Before {
  const images = statesInput(graph, ["groups", "positions", width]);
  const promptMask = graph.input("prompt_mask", "int32", ["groups", "prompt"]);
  return { images, prompt: promptInput(graph), promptMask };
}

function qformerConfig({ qformer_config: config, num_query_tokens }: Json, where: string): QFormerConfig {
  const { hidden_size: width, num_attention_heads: heads } = config;
  checkHeads(width, heads, where);
  checkActivation(config.hidden_act, `${where}.hidden_act`);
  return {
    width,
    heads,
    hidden: config.intermediate_size,
    layers: config.num_hidden_layers,
    epsilon: config.layer_norm_eps,
    frequency: config.cross_attention_frequency,
    queries: num_query_tokens,
    vocabulary: config.vocab_size,
    positions: config.max_position_embeddings,
  };
}

function optConfig(json: Json, where: string): OptConfig {
  const { text_config: config, num_query_tokens } = json;
  const { hidden_size: width, num_attention_heads: heads, vocab_size: vocabulary } = config;
  if (config.model_type !== "opt") unsupported(`${where}.model_type is ${config.model_type}; only opt is supported`);
  checkHeads(width, heads, where);
  checkActivation(config.activation_function, `${where}.activation_function`, "relu");
  const plain = {
    word_embed_proj_dim: width,
    do_layer_norm_before: true,
    _remove_final_layer_norm: false,
    enable_bias: true,
    layer_norm_elementwise_affine: true,
  };
  for (const [field, only] of Object.entries(plain) as [keyof typeof plain, unknown][]) {
    const value = config[field] ?? only;
    if (value !== only) unsupported(`${where}.${field} is ${value}; only ${only} is supported`);
  }
  for (const field of ["bos_token_id", "eos_token_id", "pad_token_id"] as const) {
    if (config[field] >= vocabulary) invalid(`${where}.${field} is ${config[field]}, beyond vocab_size, ${vocabulary}`);
  }
  if (config.max_position_embeddings <= num_query_tokens) {
    const most = `max_position_embeddings is ${config.max_position_embeddings}`;
    invalid(`${where}.${most}: num_query_tokens, ${num_query_tokens}, leave no place for a text`);
  }
  return {
    width,
    heads,
    vocabulary,
    hidden: config.ffn_dim,
    layers: config.num_hidden_layers,
    positions: config.max_position_embeddings,
    end: config.eos_token_id,
    pad: config.pad_token_id,
    tied: config.tie_word_embeddings,
  };
}

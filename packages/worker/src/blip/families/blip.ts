/** BLIP (Li et al. 2022): a vision transformer, and BERT that looks at it by cross-attention. */
import * as z from "zod";
import {
  type BertConfig,
  bertDecoder,
  type Ends,
  encodeText,
  imageSource,
  languageHead,
  questionSource,
} from "../bert.ts";
import { exactLinearOf, firstPosition, linear, type Source, sizeOf } from "../blocks.ts";
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
  type VisionConfig,
  visionConfig,
  visionSchema,
} from "../images.ts";
import { type Graph, int, type Value } from "../onnx/graph.ts";
import type { Weights } from "../weights.ts";
import { family } from "./family.ts";

/** With the defaults of transformers' BlipConfig, BlipTextConfig and BlipVisionConfig. */
const schema = z.object({
  image_text_hidden_size: size.default(256),
  vision_config: visionSchema({
    width: 768,
    hidden: 3072,
    layers: 12,
    heads: 12,
    size: 384,
    patch: 16,
    epsilon: 1e-5,
  }),
  text_config: z
    .object({
      vocab_size: size.default(30524),
      hidden_size: size.default(768),
      intermediate_size: size.default(3072),
      num_hidden_layers: size.default(12),
      num_attention_heads: size.default(8),
      max_position_embeddings: size.default(512),
      hidden_act: z.string().default("gelu"),
      layer_norm_eps: epsilon.default(1e-12),
      bos_token_id: tokenId.default(30522),
      sep_token_id: tokenId.default(102),
      pad_token_id: tokenId.default(0),
    })
    .prefault({}),
});

interface TextConfig extends BertConfig, Ends {
  start: number;
}

interface Config {
  vision: VisionConfig;
  text: TextConfig;
  /** Of the space in which images and texts are compared. */
  dimensions: number;
  preprocessing: Preprocessing;
}

const BUILDS: Record<string, (config: Config) => Builds> = {
  BlipForConditionalGeneration: (config) => ({
    vision: (graph, weights) => statesOf(graph, weights, config),
    ...generating((graph, weights) => decoderOf(graph, weights, config, imagesSeen)),
  }),
  BlipForQuestionAnswering: (config) => ({
    vision: (graph, weights) => statesOf(graph, weights, config),
    question: (graph, weights) => question(graph, weights, config),
    ...generating((graph, weights) => decoderOf(graph, weights, config, questionsSeen)),
    rank: (graph, weights) => rank(graph, weights, config),
  }),
  BlipForImageTextRetrieval: (config) => ({
    vision: (graph, weights) => statesAndEmbedding(graph, weights, config),
    match: (graph, weights) => match(graph, weights, config),
    text: (graph, weights) => text(graph, weights, config),
  }),
};

export const blip = family(Object.keys(BUILDS), schema, (config, architecture, file) => {
  const vision = visionConfig(config.vision_config, `${file}: vision_config`);
  const text = textConfig(config.text_config, `${file}: text_config`);
  if (architecture === "BlipForQuestionAnswering" && vision.width !== text.width) {
    const widths = `text_config.hidden_size ${text.width} and vision_config.hidden_size ${vision.width}`;
    invalid(`${file}: ${widths} differ, but answers look at both with one layer`);
  }
  const { vocabulary, start, end, positions } = text;
  const makesTexts = architecture !== "BlipForImageTextRetrieval";
  return {
    vision,
    positions,
    generation: makesTexts ? { vocabulary, start, end, image: "beside", template: "{question}" } : null,
    tokenizer: { kind: "bert", vocabulary, end },
    builds: (preprocessing) =>
      BUILDS[architecture]!({ vision, text, dimensions: config.image_text_hidden_size, preprocessing }),
  };
});

function textConfig(config: z.infer<typeof schema>["text_config"], where: string): TextConfig {
  const { hidden_size: width, num_attention_heads: heads, vocab_size: vocabulary } = config;
  checkHeads(width, heads, where);
  checkActivation(config.hidden_act, `${where}.hidden_act`);
  for (const field of ["bos_token_id", "sep_token_id", "pad_token_id"] as const) {
    if (config[field] >= vocabulary) invalid(`${where}.${field} is ${config[field]}, beyond vocab_size, ${vocabulary}`);
  }
  return {
    width,
    heads,
    vocabulary,
    hidden: config.intermediate_size,
    layers: config.num_hidden_layers,
    epsilon: config.layer_norm_eps,
    positions: config.max_position_embeddings,
    start: config.bos_token_id,
    end: config.sep_token_id,
    pad: config.pad_token_id,
  };
}

/** pixels → states: an image's patches. */
function statesOf(graph: Graph, weights: Weights, { vision, preprocessing }: Config): Value {
  const encoded = encodedImages(graph, weights, vision, preprocessing);
  statesOutput(graph, "states", encoded, ["images", 1 + vision.grid ** 2, vision.width]);
  return encoded;
}

/** pixels → states; embedding: float32 [images, 1, dimensions], of length 1. */
function statesAndEmbedding(graph: Graph, weights: Weights, config: Config): void {
  const image = firstPosition(graph, statesOf(graph, weights, config));
  const projected = linear(
    graph,
    image,
    exactLinearOf(weights.at("vision_proj"), config.vision.width, config.dimensions),
  );
  embeddingOutput(graph, graph.op("Unsqueeze", [projected, graph.int64([1])]), ["images", 1, config.dimensions]);
}

/** ids, mask → embedding: float32 [texts, dimensions], of length 1. Texts alone, without an image. */
function text(graph: Graph, weights: Weights, config: Config): void {
  const { ids, mask } = textInputs(graph);
  const encoded = encodeText(graph, weights.at("text_encoder"), config.text, { ids, mask, source: null });
  const projection = exactLinearOf(weights.at("text_proj"), config.text.width, config.dimensions);
  embeddingOutput(graph, linear(graph, firstPosition(graph, encoded), projection), ["texts", config.dimensions]);
}

/** states, ids, mask → probability: float32 [texts]: how likely it is that the text is of the image. */
function match(graph: Graph, weights: Weights, config: Config): void {
  const first = firstPosition(graph, textOfImage(graph, weights, config));
  matchOutput(graph, linear(graph, first, exactLinearOf(weights.at("itm_head"), config.text.width, 2)));
}

/** states, ids, mask → question: the questions' own states, [texts, tokens, width]. */
function question(graph: Graph, weights: Weights, config: Config): void {
  const encoded = textOfImage(graph, weights, config);
  statesOutput(graph, "question", encoded, ["texts", "tokens", config.text.width]);
}

/** Texts that look at their image: [texts, tokens, width]. */
function textOfImage(graph: Graph, weights: Weights, config: Config): Value {
  const { width } = config.vision;
  const states = statesInput(graph, ["images", "positions", width]);
  const { ids, mask } = textInputs(graph);
  const encoder = weights.at("text_encoder");
  const source = imageSource(graph, encoder, config.text, states, width);
  return encodeText(graph, encoder, config.text, { ids, mask, source });
}

/** states of questions, mask, answers → totals, first. See graphs.ts. */
function rank(graph: Graph, weights: Weights, config: Config): void {
  const source = questionsSeen(graph, weights, config);
  const inputs = rankInputs(graph);
  const { answers } = inputs;
  const shape = graph.op("Concat", [source.groups, graph.op("Shape", [answers])], { axis: int(0) });
  const perRow = graph.op("Concat", [graph.int64([-1]), sizeOf(graph, answers, 1)], { axis: int(0) });
  const ids = graph.op("Reshape", [graph.op("Expand", [answers, shape]), perRow]);

  const decoder = weights.at("text_decoder");
  const x = encodeText(graph, decoder.at("bert"), config.text, { ids, mask: null, causal: true, source });
  const logits = graph.toFloat32(languageHead(graph, decoder, config.text, x));
  const logProbabilities = graph.op("LogSoftmax", [logits], { axis: int(-1) });
  const { vocabulary } = config.text;
  const grid = graph.op("Concat", [shape, graph.int64([vocabulary])], { axis: int(0) });
  rankOutputs(graph, graph.op("Reshape", [logProbabilities, grid]), inputs, vocabulary);
}

/** What a decoder looks at. */
type Seen = (graph: Graph, weights: Weights, config: Config) => Source;

function decoderOf(graph: Graph, weights: Weights, config: Config, seen: Seen) {
  const source = seen(graph, weights, config);
  return bertDecoder(graph, weights.at("text_decoder"), config.text, { prompt: promptInput(graph), source });
}

function imagesSeen(graph: Graph, weights: Weights, { text, vision }: Config): Source {
  const states = statesInput(graph, ["groups", "positions", vision.width]);
  return imageSource(graph, weights.at("text_decoder.bert"), text, states, vision.width);
}

/** Unlike an image's, a question's states are padded. */
function questionsSeen(graph: Graph, weights: Weights, { text }: Config): Source {
  const states = statesInput(graph, ["groups", "positions", text.width]);
  const mask = graph.input("mask", "int32", ["groups", "positions"]);
  return questionSource(graph, weights.at("text_decoder.bert"), text, states, mask);
}

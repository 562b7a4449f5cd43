/**
 * The graphs of an engine: one that encodes images, and for each thing that an architecture does one that takes it from
 * there. They are files of their own, so that a worker holds in memory only what its jobs use.
 *
 * `states` are float32 [groups, positions, width]: an image's patches, or (of a question) its tokens, as the model sees
 * them. Texts are int64 [rows, tokens], [CLS] … [SEP], padded at the end; `mask`, int32, is 0 for padding. Several texts
 * of an image stand in rows that follow each other, so rows = images × texts.
 */
import { CapfleetError } from "@capfleet/shared/contract";
import { cast, exactLinearOf, firstPosition, linear, normalize } from "./blocks.ts";
import type { ModelConfig } from "./config.ts";
import { beamInputs, beamSearch } from "./decoding/beam.ts";
import { likeliest, rowByRow } from "./decoding/rows.ts";
import { rowsOf, sampled, samplingInputs } from "./decoding/sample.ts";
import { optionInputs, type Setting } from "./decoding/steps.ts";
import type { GraphName } from "./folder.ts";
import { type Dimension, Graph, int, type Value } from "./onnx/graph.ts";
import { encodeText, imageSource, languageHead, questionSource, type Source } from "./text.ts";
import { visionEncoder } from "./vision.ts";
import type { Weights, WeightsFile } from "./weights.ts";

type Build = (graph: Graph, weights: Weights, config: ModelConfig) => void;

const ARCHITECTURE_GRAPHS: Record<string, Partial<Record<GraphName, Build>>> = {
  BlipForConditionalGeneration: {
    vision: states,
    greedy: (...args) => greedy(...args, "image"),
    sample: (...args) => sample(...args, "image"),
    beam: (...args) => beam(...args, "image"),
  },
  BlipForQuestionAnswering: {
    vision: states,
    question,
    greedy: (...args) => greedy(...args, "question"),
    sample: (...args) => sample(...args, "question"),
    beam: (...args) => beam(...args, "question"),
    rank,
  },
  BlipForImageTextRetrieval: { vision: statesAndEmbedding, match, text },
};

/** Builds the graphs and plans their weights. Throws MODEL_INVALID: a tensor is missing or misshapen. */
export function buildGraphs(config: ModelConfig, file: WeightsFile): Map<GraphName, Graph> {
  const { vision, text, architecture } = config;
  if (architecture === "BlipForQuestionAnswering" && vision.width !== text.width) {
    const widths = `text_config.hidden_size ${text.width} and vision_config.hidden_size ${vision.width}`;
    throw new CapfleetError("MODEL_INVALID", `config.json: ${widths} differ, but answers look at both with one layer`);
  }
  const graphs = new Map<GraphName, Graph>();
  for (const [name, build] of Object.entries(ARCHITECTURE_GRAPHS[architecture]!) as [GraphName, Build][]) {
    const graph = new Graph(name, file.precision === "fp16" ? "float16" : "float32");
    build(graph, file.in(graph, name === "vision" ? "columns" : "blocks"), config);
    graphs.set(name, graph);
  }
  return graphs;
}

/** pixels: uint8 [images, size, size, 3], RGB → states. In 8 bits one image at a time: see rounding.ts. */
function states(graph: Graph, weights: Weights, config: ModelConfig): Value {
  const { vision, preprocessing } = config;
  const pixels = graph.input("pixels", "uint8", [weights.rounded ? 1 : "images", vision.size, vision.size, 3]);
  const encoded = visionEncoder(graph, weights.at("vision_model"), vision, preprocessing, pixels);
  statesOutput(graph, "states", encoded, ["images", 1 + vision.grid ** 2, vision.width]);
  return encoded;
}

/** pixels → states; embedding: float32 [images, dimensions], of length 1. */
function statesAndEmbedding(graph: Graph, weights: Weights, config: ModelConfig): void {
  const encoded = states(graph, weights, config);
  const projection = exactLinearOf(weights.at("vision_proj"), config.vision.width, config.dimensions);
  embeddingOutput(graph, linear(graph, firstPosition(graph, encoded), projection), config);
}

/** ids, mask → embedding: float32 [texts, dimensions], of length 1. Texts alone, without an image. */
function text(graph: Graph, weights: Weights, config: ModelConfig): void {
  const { ids, mask } = textInputs(graph);
  const encoded = encodeText(graph, weights.at("text_encoder"), config.text, { ids, mask, source: null });
  const projection = exactLinearOf(weights.at("text_proj"), config.text.width, config.dimensions);
  embeddingOutput(graph, linear(graph, firstPosition(graph, encoded), projection), config);
}

/** states, ids, mask → probability: float32 [texts]: how likely it is that the text is of the image. */
function match(graph: Graph, weights: Weights, config: ModelConfig): void {
  const encoded = textOfImage(graph, weights, config);
  const logits = linear(
    graph,
    firstPosition(graph, encoded),
    exactLinearOf(weights.at("itm_head"), config.text.width, 2),
  );
  const probabilities = graph.op("Softmax", [graph.toFloat32(logits)], { axis: int(-1) });
  const matches = graph.op("Gather", [probabilities, graph.int64(1)], { axis: int(1) });
  graph.output(graph.named("probability", matches), "float32", ["texts"]);
}

/** states, ids, mask → question: the questions' own states, [texts, tokens, width]. */
function question(graph: Graph, weights: Weights, config: ModelConfig): void {
  const encoded = textOfImage(graph, weights, config);
  statesOutput(graph, "question", encoded, ["texts", "tokens", config.text.width]);
}

/** states, options → ids: int64 [groups, tokens], prompt included; totals: float32 [groups]. See decoding/rows.ts. */
function greedy(graph: Graph, weights: Weights, config: ModelConfig, of: StatesOf): void {
  const setting = generation(graph, weights, config, of);
  const { ids, totals } = rowByRow(graph, setting, setting.source.groups, likeliest);
  graph.output(graph.named("ids", ids), "int64", ["rows", "history"]);
  graph.output(graph.named("totals", totals), "float32", ["rows"]);
}

/** As `greedy`, with a row for each candidate of each group. */
function sample(graph: Graph, weights: Weights, config: ModelConfig, of: StatesOf): void {
  const setting = generation(graph, weights, config, of);
  const inputs = samplingInputs(graph);
  const { ids, totals } = rowByRow(graph, setting, rowsOf(graph, inputs), sampled(graph, config.text, inputs));
  graph.output(graph.named("ids", ids), "int64", ["rows", "history"]);
  graph.output(graph.named("totals", totals), "float32", ["rows"]);
}

/** states, options → ids: int64 [groups, beams, tokens]; ranks, totals: float32 [groups, beams]. See decoding/beam.ts. */
function beam(graph: Graph, weights: Weights, config: ModelConfig, of: StatesOf): void {
  const { ids, ranks, totals } = beamSearch(graph, generation(graph, weights, config, of), beamInputs(graph));
  graph.output(graph.named("ids", ids), "int64", ["groups", "beams", "history"]);
  graph.output(graph.named("ranks", ranks), "float32", ["groups", "beams"]);
  graph.output(graph.named("totals", totals), "float32", ["groups", "beams"]);
}

/**
 * How likely each answer is, as in the BLIP paper: the decoder is shown the whole answer, and asked at each token what
 * it thought of it. states, mask (of questions); answers: int64 [answers, tokens], from the start token on; targets, the
 * token after each, and weights, float32, 1 for those that count → totals: float32 [questions, answers], sums of
 * log-probabilities; first: float32 [questions, vocabulary], log-probabilities of the token after the first answer's first.
 */
function rank(graph: Graph, weights: Weights, config: ModelConfig): void {
  const source = generationSource(graph, weights, config, "question");
  const answers = graph.input("answers", "int64", ["answers", "tokens"]);
  const targets = graph.input("targets", "int64", ["answers", "tokens"]);
  const counted = graph.input("weights", "float32", ["answers", "tokens"]);
  const shape = graph.op("Concat", [source.groups, graph.op("Shape", [answers])], { axis: int(0) });
  const length = graph.op("Shape", [answers], { start: int(1), end: int(2) });
  const perRow = graph.op("Concat", [graph.int64([-1]), length], { axis: int(0) });
  const rows = (values: Value) => graph.op("Reshape", [graph.op("Expand", [values, shape]), perRow]);

  const decoder = weights.at("text_decoder");
  const ids = rows(answers);
  const x = encodeText(graph, decoder.at("bert"), config.text, { ids, mask: null, causal: true, source });
  const logits = graph.toFloat32(languageHead(graph, decoder, config.text, x));
  const logProbabilities = graph.op("LogSoftmax", [logits], { axis: int(-1) });
  const wanted = graph.op("Unsqueeze", [rows(targets), graph.int64([2])]);
  const found = graph.op("GatherElements", [logProbabilities, wanted], { axis: int(2) });
  const each = graph.op("Mul", [graph.op("Squeeze", [found, graph.int64([2])]), rows(counted)]);
  const sums = graph.op("ReduceSum", [each, graph.int64([1])], { keepdims: int(0) });
  const grid = graph.op("Concat", [source.groups, graph.int64([-1])], { axis: int(0) });
  graph.output(graph.named("totals", graph.op("Reshape", [sums, grid])), "float32", ["questions", "answers"]);

  const starts = graph.op("Concat", [grid, graph.int64([config.text.vocabulary])], { axis: int(0) });
  const atStart = graph.op("Reshape", [firstPosition(graph, logProbabilities), starts]);
  graph.output(graph.named("first", firstPosition(graph, atStart)), "float32", ["questions", config.text.vocabulary]);
}

/** What a decoder looks at. A question's states are padded, an image's are not. */
type StatesOf = "image" | "question";

function generation(graph: Graph, weights: Weights, config: ModelConfig, of: StatesOf): Setting {
  const source = generationSource(graph, weights, config, of);
  return { decoder: weights.at("text_decoder"), config: config.text, source, options: optionInputs(graph) };
}

function generationSource(graph: Graph, weights: Weights, config: ModelConfig, of: StatesOf): Source {
  const bert = weights.at("text_decoder.bert");
  const { text, vision } = config;
  if (of === "image") {
    return imageSource(graph, bert, text, statesInput(graph, ["groups", "positions", vision.width]), vision.width);
  }
  const states = statesInput(graph, ["groups", "positions", text.width]);
  return questionSource(graph, bert, text, states, graph.input("mask", "int32", ["groups", "positions"]));
}

/** Texts that look at their image: [texts, tokens, width]. */
function textOfImage(graph: Graph, weights: Weights, config: ModelConfig): Value {
  const { width } = config.vision;
  const states = statesInput(graph, ["images", "positions", width]);
  const { ids, mask } = textInputs(graph);
  const encoder = weights.at("text_encoder");
  const source = imageSource(graph, encoder, config.text, states, width);
  return encodeText(graph, encoder, config.text, { ids, mask, source });
}

/** Between graphs states are float32 in every precision: onnxruntime-node does not take float16 from JavaScript. */
const statesInput = (graph: Graph, shape: readonly Dimension[]): Value =>
  cast(graph, graph.input("states", "float32", shape), graph.real);

const statesOutput = (graph: Graph, name: string, states: Value, shape: readonly Dimension[]): void =>
  graph.output(graph.named(name, graph.toFloat32(states)), "float32", shape);

const textInputs = (graph: Graph) => ({
  ids: graph.input("ids", "int64", ["texts", "tokens"]),
  mask: graph.input("mask", "int32", ["texts", "tokens"]),
});

function embeddingOutput(graph: Graph, projected: Value, { dimensions }: ModelConfig): void {
  graph.output(graph.named("embedding", normalize(graph, projected)), "float32", ["rows", dimensions]);
}

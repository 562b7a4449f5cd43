/**
 * What the graphs of an engine have in common, whatever the model. There is one that encodes images, and for each thing
 * that an architecture does one that takes it from there. They are files of their own, so that a worker holds in memory
 * only what its jobs use. Which graphs there are, and what is in them, is a family's business: see families/.
 *
 * `states` are float32 [groups, positions, width]: what a model sees of an image, or of a question about one. Texts are
 * int64 [rows, tokens], padded at the end; `mask`, int32, is 0 for padding. Several texts of an image stand in rows that
 * follow each other, so rows = images × texts.
 */
import { cast, firstPosition, normalize, sizeOf } from "./blocks.ts";
import { beamInputs, beamSearch } from "./decoding/beam.ts";
import type { Decoder } from "./decoding/decoder.ts";
import { likeliest, rowByRow } from "./decoding/rows.ts";
import { candidatesOf, sampled, samplingInputs } from "./decoding/sample.ts";
import { optionInputs } from "./decoding/steps.ts";
import type { GraphName } from "./folder.ts";
import type { Preprocessing, VisionConfig } from "./images.ts";
import { type Dimension, Graph, int, type Value } from "./onnx/graph.ts";
import { visionEncoder } from "./vision.ts";
import type { Weights, WeightsFile } from "./weights.ts";

/** Adds to an empty graph its inputs, nodes and outputs. Throws MODEL_INVALID: a tensor is missing or misshapen. */
export type Build = (graph: Graph, weights: Weights) => void;
export type Builds = Partial<Record<GraphName, Build>>;

/** Builds the graphs and plans their weights. Throws MODEL_INVALID: a tensor is missing or misshapen. */
export function buildGraphs(builds: Builds, file: WeightsFile): Map<GraphName, Graph> {
  const graphs = new Map<GraphName, Graph>();
  for (const [name, build] of Object.entries(builds) as [GraphName, Build][]) {
    const graph = new Graph(name, file.precision === "fp16" ? "float16" : "float32");
    build(graph, file.in(graph));
    graphs.set(name, graph);
  }
  return graphs;
}

/**
 * The images' patches as the vision transformer `vision_model` sees them, [images, 1 + patches, width], of the graph's
 * input `pixels`: uint8 [images, size, size, 3], RGB. In 8 bits one image at a time: see rounding.ts.
 */
export function encodedImages(
  graph: Graph,
  weights: Weights,
  vision: VisionConfig,
  preprocessing: Preprocessing,
): Value {
  const pixels = graph.input("pixels", "uint8", [weights.rounded ? 1 : "images", vision.size, vision.size, 3]);
  return visionEncoder(graph, weights.at("vision_model").byColumns, vision, preprocessing, pixels);
}

/** The graphs that make texts: all that differs from model to model is the decoder. */
export const generating = (decoder: (graph: Graph, weights: Weights) => Decoder): Builds => ({
  /** options → ids: int64 [groups, new tokens]; totals: float32 [groups]. See decoding/rows.ts. */
  greedy(graph, weights) {
    const setting = { decoder: decoder(graph, weights), options: optionInputs(graph) };
    textsOutput(graph, rowByRow(graph, setting, null, likeliest));
  },
  /** As `greedy`, with a row for each candidate of each group. */
  sample(graph, weights) {
    const setting = { decoder: decoder(graph, weights), options: optionInputs(graph) };
    const inputs = samplingInputs(graph);
    const pick = sampled(graph, setting.decoder.vocabulary, inputs);
    textsOutput(graph, rowByRow(graph, setting, candidatesOf(graph, inputs), pick));
  },
  /** options → ids: int64 [groups, beams, new tokens]; ranks, totals: float32 [groups, beams]. See decoding/beam.ts. */
  beam(graph, weights) {
    const setting = { decoder: decoder(graph, weights), options: optionInputs(graph) };
    const { ids, ranks, totals } = beamSearch(graph, setting, beamInputs(graph));
    graph.output(graph.named("ids", ids), "int64", ["groups", "beams", "tokens"]);
    graph.output(graph.named("ranks", ranks), "float32", ["groups", "beams"]);
    graph.output(graph.named("totals", totals), "float32", ["groups", "beams"]);
  },
});

function textsOutput(graph: Graph, { ids, totals }: { ids: Value; totals: Value }): void {
  graph.output(graph.named("ids", ids), "int64", ["rows", "tokens"]);
  graph.output(graph.named("totals", totals), "float32", ["rows"]);
}

/** int64 [groups, tokens], from the start token on; what each group's text begins with. */
export const promptInput = (graph: Graph): Value => graph.input("prompt", "int64", ["groups", "prompt"]);

/** Between graphs states are float32 in every precision: onnxruntime-node does not take float16 from JavaScript. */
export const statesInput = (graph: Graph, shape: readonly Dimension[]): Value =>
  cast(graph, graph.input("states", "float32", shape), graph.real);

export const statesOutput = (graph: Graph, name: string, states: Value, shape: readonly Dimension[]): void =>
  graph.output(graph.named(name, graph.toFloat32(states)), "float32", shape);

export const textInputs = (graph: Graph) => ({
  ids: graph.input("ids", "int64", ["texts", "tokens"]),
  mask: graph.input("mask", "int32", ["texts", "tokens"]),
});

/** Vectors scaled to length 1: float32, the last size is the number of dimensions. */
export const embeddingOutput = (graph: Graph, vectors: Value, shape: readonly Dimension[]): void =>
  graph.output(graph.named("embedding", normalize(graph, vectors)), "float32", shape);

/** `logits`, [texts, 2]: no match and match → probability: float32 [texts]. */
export function matchOutput(graph: Graph, logits: Value): void {
  const probabilities = graph.op("Softmax", [graph.toFloat32(logits)], { axis: int(-1) });
  const matches = graph.op("Gather", [probabilities, graph.int64(1)], { axis: int(1) });
  graph.output(graph.named("probability", matches), "float32", ["texts"]);
}

/**
 * How likely each answer of a closed list is, as in the BLIP paper: the decoder is shown the whole answer, and asked at
 * each token what it thought of it.
 */
export interface RankInputs {
  /** int64 [answers, tokens]: the start token, and the answer but for its last token. */
  answers: Value;
  /** int64 [answers, tokens]: the token after each, and float32: 1 for those that count. */
  targets: Value;
  counted: Value;
}

export const rankInputs = (graph: Graph): RankInputs => ({
  answers: graph.input("answers", "int64", ["answers", "tokens"]),
  targets: graph.input("targets", "int64", ["answers", "tokens"]),
  counted: graph.input("weights", "float32", ["answers", "tokens"]),
});

/**
 * `logProbabilities`: float32 [questions, answers, tokens, vocabulary] → totals: float32 [questions, answers], sums over
 * the tokens that count; first: float32 [questions, vocabulary], those of the token after the first answer's first.
 */
export function rankOutputs(graph: Graph, logProbabilities: Value, inputs: RankInputs, vocabulary: number): void {
  const [questions, all] = [sizeOf(graph, logProbabilities, 0), graph.op("Shape", [inputs.targets])];
  const grid = graph.op("Concat", [questions, all, graph.int64([1])], { axis: int(0) });
  const wanted = graph.op("Expand", [graph.op("Unsqueeze", [inputs.targets, graph.int64([2])]), grid]);
  const found = graph.op("GatherElements", [logProbabilities, wanted], { axis: int(3) });
  const each = graph.op("Mul", [graph.op("Squeeze", [found, graph.int64([3])]), inputs.counted]);
  const sums = graph.op("ReduceSum", [each, graph.int64([2])], { keepdims: int(0) });
  graph.output(graph.named("totals", sums), "float32", ["questions", "answers"]);

  const starts = firstPosition(graph, firstPosition(graph, logProbabilities));
  graph.output(graph.named("first", starts), "float32", ["questions", vocabulary]);
}

/** The vision transformer of BLIP and BLIP-2: pixels to one vector per patch, and one for the image. */
import { linear, linearGelu, linearOf, normOf, type PreNormLayer, preNormLayers, selfAttention } from "./blocks.ts";
import type { Preprocessing, VisionConfig } from "./images.ts";
import { dataType, type Graph, int, ints, type Value } from "./onnx/graph.ts";
import type { Weights } from "./weights.ts";

/** `pixels`: uint8 [batch, size, size, 3]. Returns [batch, 1 + patches, width]; the image's vector is first. */
export function visionEncoder(
  graph: Graph,
  weights: Weights,
  config: VisionConfig,
  preprocessing: Preprocessing,
  pixels: Value,
): Value {
  const { width, hidden, layers, heads, epsilon } = config;
  const norm = (name: string) => normOf(weights.at(name), width, epsilon);
  const x = embeddings(graph, weights.at("embeddings"), config, preprocessing, pixels);
  const all = Array.from({ length: layers }, (_, i): PreNormLayer => {
    const name = `encoder.layers.${i}`;
    const layer = weights.at(name);
    const qkv = linearOf(layer.at("self_attn.qkv"), width, 3 * width);
    return {
      attend: (x) => selfAttention(graph, x, qkv, heads),
      projection: linearOf(layer.at("self_attn.projection"), width, width),
      middleNorm: norm(`${name}.layer_norm2`),
      first: linearOf(layer.at("mlp.fc1"), width, hidden),
      activation: linearGelu,
      second: linearOf(layer.at("mlp.fc2"), hidden, width),
      nextNorm: norm(i + 1 < layers ? `encoder.layers.${i + 1}.layer_norm1` : "post_layernorm"),
    };
  });
  return preNormLayers(graph, x, norm("encoder.layers.0.layer_norm1"), all);
}

function embeddings(
  graph: Graph,
  weights: Weights,
  { width, patch, grid }: VisionConfig,
  preprocessing: Preprocessing,
  pixels: Value,
): Value {
  const image = patches(graph, normalized(graph, cut(graph, pixels, grid, patch), preprocessing), grid, patch);
  const inputs = 3 * patch * patch;
  const embedded = linear(graph, image, {
    inputs,
    outputs: width,
    // In 8 bits too this one stays as it is: rounding pixels costs more than it saves.
    weight: { plain: weights.tensor("patch_embedding.weight", [width, 3, patch, patch], [width, inputs]) },
    bias: weights.tensor("patch_embedding.bias", [width]),
  });
  const batch = graph.op("Shape", [pixels], { start: int(0), end: int(1) });
  const shape = graph.op("Concat", [batch, graph.int64([1, width])], { axis: int(0) });
  const first = graph.op("Expand", [weights.tensor("class_embedding", [1, 1, width]), shape]);
  const positions = weights.tensor("position_embedding", [1, 1 + grid * grid, width]);
  return graph.op("Add", [graph.op("Concat", [first, embedded], { axis: int(1) }), positions]);
}

/** The image cut into patches, [batch, grid, grid, 3, patch, patch]: the order in which the weights are. */
function cut(graph: Graph, pixels: Value, grid: number, patch: number): Value {
  // Pixels beyond the last whole patch are left out, as the convolution that this stands for does.
  const side = grid * patch;
  const whole = [graph.int64([0, 0]), graph.int64([side, side]), graph.int64([1, 2])];
  const rows = graph.int64([0, grid, patch, grid, patch, 3]);
  const split = graph.op("Reshape", [graph.op("Slice", [pixels, ...whole]), rows]);
  return graph.op("Transpose", [split], { perm: ints(0, 1, 3, 5, 2, 4) });
}

/** Bytes to reals, (x · rescale − mean) / std per channel. */
function normalized(graph: Graph, cuts: Value, { scale, shift }: Preprocessing): Value {
  const reals = graph.op("Cast", [cuts], { to: dataType(graph.real) });
  const scaled = graph.op("Mul", [reals, graph.reals(scale, [3, 1, 1])]);
  return graph.op("Add", [scaled, graph.reals(shift, [3, 1, 1])]);
}

const patches = (graph: Graph, cuts: Value, grid: number, patch: number): Value =>
  graph.op("Reshape", [cuts, graph.int64([0, grid * grid, 3 * patch * patch])]);

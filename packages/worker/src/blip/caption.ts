/**
 * The graph that captions images: vision transformer, then the token loop, greedy.
 *
 * Inputs:  pixels          uint8 [batch, size, size, 3], RGB
 *          max_new_tokens  int64 [], 1 to the model's positions
 * Outputs: ids             int64 [batch, tokens], without the start token; what follows the end token is padding
 *          scores          float32 [batch], mean natural-log probability of the ids up to and with the end token
 */
import type { ModelConfig } from "./config.ts";
import { greedy } from "./greedy.ts";
import { Graph, int } from "./onnx/graph.ts";
import type { Checkpoint } from "./safetensors.ts";
import { imageMemory } from "./text.ts";
import { visionEncoder } from "./vision.ts";
import { Weights } from "./weights.ts";

/** Builds the graph, and the plan of the weights that it refers to. Throws MODEL_INVALID: a tensor is missing or misshapen. */
export function captionGraph(config: ModelConfig, checkpoint: Checkpoint): { graph: Graph; weights: Weights } {
  const graph = new Graph("caption");
  const weights = Weights.of(checkpoint, graph);
  const { size } = config.vision;
  const pixels = graph.input("pixels", "uint8", ["batch", size, size, 3]);
  const turns = graph.input("max_new_tokens", "int64", []);

  const encoded = visionEncoder(graph, weights.at("vision_model"), config.vision, config.preprocessing, pixels);
  const decoder = weights.at("text_decoder");
  const image = imageMemory(graph, decoder, config.text, config.vision.width, encoded);
  const batch = graph.op("Shape", [pixels], { start: int(0), end: int(1) });
  const { ids, scores } = greedy(graph, decoder, config.text, { batch, turns, image });

  graph.output(graph.named("ids", ids), "int64", ["batch", "tokens"]);
  graph.output(graph.named("scores", scores), "float32", ["batch"]);
  return { graph, weights };
}

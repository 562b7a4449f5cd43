/**
 * Sampling: tokens are drawn by their probabilities. The graph has no generator of random numbers (its state would run
 * on from call to call); the noise is an input, and picks a token by the inverse of the cumulative distribution. The
 * same noise gives the same text, in whatever batch.
 *
 * Temperature, top-k and top-p in transformers' order: what top-k leaves is normalized again before top-p cuts.
 */
import { cast, sizeOf } from "../blocks.ts";
import { type Graph, int, ints, type Value } from "../onnx/graph.ts";
import type { Pick } from "./rows.ts";

export interface SamplingInputs {
  /** float32 [groups, candidates, new tokens]: at least 0, below 1. */
  noise: Value;
  /** float32 []. */
  temperature: Value;
  topP: Value;
  /** int64 []: at least 1. */
  topK: Value;
}

export function samplingInputs(graph: Graph): SamplingInputs {
  return {
    noise: graph.input("noise", "float32", ["groups", "candidates", "steps"]),
    temperature: graph.input("temperature", "float32", []),
    topK: graph.input("top_k", "int64", []),
    topP: graph.input("top_p", "float32", []),
  };
}

/** int64 [1]: how many texts the noise is for, per group. */
export const candidatesOf = (graph: Graph, { noise }: SamplingInputs): Value => sizeOf(graph, noise, 1);

export function sampled(outer: Graph, vocabulary: number, { noise, temperature, topK, topP }: SamplingInputs): Pick {
  const axis = outer.int64(-1);
  const ones = outer.op("Expand", [outer.int64([1]), outer.int64([vocabulary])]);
  const ranks = outer.op("CumSum", [ones, outer.int64(0)], { exclusive: int(1) });
  const inTopK = outer.op("Less", [ranks, topK]);
  const isFirst = outer.op("Equal", [ranks, outer.int64(0)]);
  return (graph, scores, made) => {
    const scaled = graph.op("Div", [scores, temperature]);
    const [sorted, tokens] = graph.ops("TopK", [scaled, graph.int64([vocabulary])], [0, 1], { axis: int(-1) });
    const kept = graph.op("Where", [inTopK, sorted!, graph.float32([-1e30], [])]);
    const probabilities = graph.op("Softmax", [kept], { axis: int(-1) });
    const before = graph.op("CumSum", [probabilities, axis], { exclusive: int(1) });
    const inTopP = graph.op("Or", [graph.op("Less", [before, topP]), isFirst]);
    const left = graph.op("Where", [inTopP, probabilities, graph.float32([0], [])]);

    const cumulative = graph.op("CumSum", [left, axis]);
    const whole = graph.op("ReduceMax", [cumulative], { axes: ints(-1), keepdims: int(1) });
    const drawn = graph.op("Reshape", [graph.op("Gather", [noise, made], { axis: int(2) }), graph.int64([-1, 1])]);
    // The first place whose cumulative probability is above the draw.
    const above = graph.op("Greater", [cumulative, graph.op("Mul", [drawn, whole])]);
    const flags = cast(graph, above, "float32");
    const place = graph.op("ArgMax", [flags], { axis: int(-1), keepdims: int(1) });
    return graph.op("GatherElements", [tokens!, place], { axis: int(1) });
  };
}

/**
 * What greedy search, sampling and beam search have in common. A turn of the token loop looks at one token per row and
 * decides on the next. While the prompt lasts, the next token is the prompt's; the turns after that make new tokens.
 */
import { cast, type Memory } from "../blocks.ts";
import type { TextConfig } from "../config.ts";
import { type Graph, int, ints, type Value } from "../onnx/graph.ts";
import type { State } from "../onnx/loop.ts";
import { decodeToken, type Source } from "../text.ts";
import type { Weights } from "../weights.ts";

/** What a loop of tokens is about. */
export interface Setting {
  /** The module with `bert` and `cls`. */
  decoder: Weights;
  config: TextConfig;
  source: Source;
  options: Options;
}

/** The graph's inputs that say how to decode; the same for all rows. */
export interface Options {
  /** int64 [tokens]: the start token and what follows it, which every text begins with. */
  prompt: Value;
  /** int64 []. */
  maxNewTokens: Value;
  minNewTokens: Value;
  /** float32 []. */
  repetitionPenalty: Value;
}

export function optionInputs(graph: Graph): Options {
  return {
    prompt: graph.input("prompt", "int64", ["prompt"]),
    maxNewTokens: graph.input("max_new_tokens", "int64", []),
    minNewTokens: graph.input("min_new_tokens", "int64", []),
    repetitionPenalty: graph.input("repetition_penalty", "float32", []),
  };
}

/** int64 []: the place of the prompt's last token, and how many turns the loop can have. */
export function extent(graph: Graph, { prompt, maxNewTokens }: Options): { last: Value; turns: Value } {
  const length = graph.op("Squeeze", [graph.op("Shape", [prompt])]);
  const last = graph.op("Sub", [length, graph.int64(1)]);
  return { last, turns: graph.op("Add", [last, maxNewTokens]) };
}

/** Where a turn stands. */
export interface Step {
  /** bool []: the next token is the prompt's; `given`, int64 [], says which. */
  inPrompt: Value;
  given: Value;
  /** int64 []: number of new tokens that there are already; below 0 in the prompt. */
  made: Value;
}

export function stepOf(graph: Graph, turn: Value, last: Value, { prompt }: Options): Step {
  const inPrompt = graph.op("Less", [turn, last]);
  const next = graph.op("Where", [inPrompt, graph.op("Add", [turn, graph.int64(1)]), last]);
  return { inPrompt, given: graph.op("Gather", [prompt, next]), made: graph.op("Sub", [turn, last]) };
}

/** One token per row through the decoder: `logits`, float32 [rows, vocabulary], and the caches with the token in them. */
export function decode(
  graph: Graph,
  { decoder, config, source }: Setting,
  { token, turn, caches }: { token: Value; turn: Value; caches: readonly Value[] },
): { logits: Value; caches: Value[] } {
  const past = Array.from(
    { length: config.layers },
    (_, i): Memory => ({ keys: caches[2 * i]!, values: caches[2 * i + 1]! }),
  );
  const { logits, present } = decodeToken(graph, decoder, config, { token, position: turn, past, source });
  const flat = graph.op("Squeeze", [graph.toFloat32(logits), graph.int64([1])]);
  return { logits: flat, caches: present.flatMap(({ keys, values }) => [keys, values]) };
}

/**
 * transformers' logits processors, in its order. Repetition: scores of tokens in `history`, int64 [rows, tokens], are
 * divided by the penalty where they are above 0, else multiplied. New tokens below the minimum: no end token.
 */
export function process(
  graph: Graph,
  scores: Value,
  history: Value,
  { made }: Step,
  { config, options }: Setting,
): Value {
  const { repetitionPenalty: penalty, minNewTokens } = options;
  const there = graph.op("GatherElements", [scores, history], { axis: int(1) });
  const positive = graph.op("Greater", [there, graph.float32([0], [])]);
  const smaller = graph.op("Where", [positive, graph.op("Div", [there, penalty]), graph.op("Mul", [there, penalty])]);
  const penalized = graph.op("ScatterElements", [scores, history, smaller], { axis: int(1) });
  const tooEarly = cast(graph, graph.op("Less", [made, minNewTokens]), "float32");
  const atEnd = graph.op("Mul", [tooEarly, graph.float32([IMPOSSIBLE], [1, 1])]);
  const pads = graph.int64([0, config.end, 0, config.vocabulary - config.end - 1]);
  return graph.op("Add", [penalized, graph.op("Pad", [atEnd, pads])]);
}

/** Stands for minus infinity in scores, as in transformers. */
export const IMPOSSIBLE = -1e9;

/** Empty caches for `rows`, int64 [1]: keys and values of each layer. */
export function emptyCaches(graph: Graph, { layers, heads, width }: TextConfig, rows: Value): State[] {
  const shape = graph.op("Concat", [rows, graph.int64([heads, 0, width / heads])], { axis: int(0) });
  const zeros = graph.op("ConstantOfShape", [shape]);
  const initial = graph.real === "float32" ? zeros : cast(graph, zeros, graph.real);
  return Array<State>(2 * layers).fill({ initial, type: graph.real, shape: ["rows", heads, "past", width / heads] });
}

/** Every row begins with the prompt's first token: int64 [...shape], of ones that `shape`, int64 [dimensions], gives. */
export const firstToken = (graph: Graph, { prompt }: Options, shape: Value): Value =>
  graph.op("Expand", [graph.op("Gather", [prompt, graph.int64([0])]), shape]);

/** A tensor of the same float32 number everywhere. */
export const filled = (graph: Graph, shape: Value, number: number): Value =>
  graph.op("Expand", [graph.float32([number], [1]), shape]);

/** bool []: whether any of `flags` is true. */
export function any(graph: Graph, flags: Value): Value {
  // No device has a reduction over bools.
  return cast(graph, graph.op("ReduceMax", [cast(graph, flags, "float32")], { keepdims: int(0) }), "bool");
}

/** bool [rows, 1]: whether all of a row's flags are true. */
export function allInRow(graph: Graph, flags: Value): Value {
  const least = graph.op("ReduceMin", [cast(graph, flags, "float32")], { axes: ints(-1), keepdims: int(1) });
  return cast(graph, least, "bool");
}

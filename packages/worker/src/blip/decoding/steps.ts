/**
 * What greedy search, sampling and beam search have in common. The first turn of the token loop looks at all that stands
 * before the first new token, at once, in a row per group; each further turn looks at one token of each row. Rows that are
 * to go different ways, candidates or beams, part after the first turn: what they have in common is computed once.
 */
import { cast, type Memory, sizeOf } from "../blocks.ts";
import { type Graph, int, ints, type Value } from "../onnx/graph.ts";
import type { State } from "../onnx/loop.ts";
import type { Decoder } from "./decoder.ts";

/** What a loop of tokens is about. */
export interface Setting {
  decoder: Decoder;
  options: Options;
}

/** The graph's inputs that say how to decode; the same for all rows. */
export interface Options {
  /** int64 []. */
  maxNewTokens: Value;
  minNewTokens: Value;
  /** float32 []. */
  repetitionPenalty: Value;
}

export function optionInputs(graph: Graph): Options {
  return {
    maxNewTokens: graph.input("max_new_tokens", "int64", []),
    minNewTokens: graph.input("min_new_tokens", "int64", []),
    repetitionPenalty: graph.input("repetition_penalty", "float32", []),
  };
}

/** The part of a loop's state that is the decoder's: what it looks at next, the mask (if any), caches of each layer. */
export function decoderState(graph: Graph, { start, groups, layers, heads, width }: Decoder): State[] {
  const shape = graph.op("Concat", [groups, graph.int64([heads, 0, width / heads])], { axis: int(0) });
  const zeros = graph.op("ConstantOfShape", [shape]);
  const initial = graph.real === "float32" ? zeros : cast(graph, zeros, graph.real);
  const cache: State = { initial, type: graph.real, shape: ["rows", heads, "past", width / heads] };
  return [
    { initial: start.embedded, type: graph.real, shape: ["rows", "positions", width] },
    ...(start.mask ? [{ initial: start.mask, type: "int32", shape: ["rows", "seen"] } satisfies State] : []),
    ...Array<State>(2 * layers).fill(cache),
  ];
}

/** A turn's work in the decoder. */
export interface Decoded {
  /** float32 [rows, vocabulary], of the rows as they were. */
  logits: Value;
  /** int64 []: how many of the rows that there will be came of each row that there was: 1 but for the first turn. */
  each: Value;
  /** The decoder's state for rows that look at `tokens`, int64 [rows, 1], next; `parents`, int64 [rows]: of which rows. */
  next(tokens: Value, parents: Value | null): Value[];
}

/** `state`: the decoder's part, as `decoderState` has it; `rows`, int64 [1]: how many there will be. */
export function decode(graph: Graph, decoder: Decoder, state: readonly Value[], rows: Value): Decoded {
  const [embedded, ...rest] = state as [Value, ...Value[]];
  const mask = decoder.start.mask ? rest[0]! : null;
  const caches = mask ? rest.slice(1) : rest;
  const past = Array.from(
    { length: decoder.layers },
    (_, i): Memory => ({ keys: caches[2 * i]!, values: caches[2 * i + 1]! }),
  );
  const { logits, present } = decoder.step(graph, { embedded, mask, past });
  const each = graph.op("Squeeze", [graph.op("Div", [rows, sizeOf(graph, embedded, 0)])]);
  const next = (tokens: Value, parents: Value | null) => {
    const of = (values: Value) => (parents ? graph.op("Gather", [values, parents]) : values);
    const seen = graph.op("Expand", [cast(graph, graph.int64([1]), "int32"), graph.op("Shape", [tokens])]);
    return [
      decoder.embed(graph, tokens),
      ...(mask ? [graph.op("Concat", [of(mask), seen], { axis: int(1) })] : []),
      ...present.flatMap(({ keys, values }) => [of(keys), of(values)]),
    ];
  };
  return { logits, each, next };
}

/**
 * transformers' logits processors, in its order. Repetition: scores of tokens in `history`, int64 [rows, tokens], are
 * divided by the penalty where they are above 0, else multiplied. New tokens (`made`, int64 []: so many so far) below the
 * minimum: no end token.
 */
export function process(
  graph: Graph,
  scores: Value,
  history: Value,
  made: Value,
  { decoder: { end, vocabulary }, options }: Setting,
): Value {
  const { repetitionPenalty: penalty, minNewTokens } = options;
  const there = graph.op("GatherElements", [scores, history], { axis: int(1) });
  const positive = graph.op("Greater", [there, graph.float32([0], [])]);
  const smaller = graph.op("Where", [positive, graph.op("Div", [there, penalty]), graph.op("Mul", [there, penalty])]);
  const penalized = graph.op("ScatterElements", [scores, history, smaller], { axis: int(1) });
  const tooEarly = cast(graph, graph.op("Less", [made, minNewTokens]), "float32");
  const atEnd = graph.op("Mul", [tooEarly, graph.float32([IMPOSSIBLE], [1, 1])]);
  const pads = graph.int64([0, end, 0, vocabulary - end - 1]);
  return graph.op("Add", [penalized, graph.op("Pad", [atEnd, pads])]);
}

/** Stands for minus infinity in scores, as in transformers. */
export const IMPOSSIBLE = -1e9;

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

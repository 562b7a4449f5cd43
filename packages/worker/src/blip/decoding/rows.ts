/** The token loop where each row goes its own way: greedy search and sampling, which differ in how they pick a token. */
import { cast, numbered, sizeOf } from "../blocks.ts";
import { type Graph, int, type Value } from "../onnx/graph.ts";
import { loop, type State } from "../onnx/loop.ts";
import { any, decode, decoderState, filled, process, type Setting } from "./steps.ts";

/** Picks the next token, int64 [rows, 1], by scores, float32 [rows, vocabulary]; `made`, int64 []: tokens so far. */
export type Pick = (graph: Graph, scores: Value, made: Value) => Value;

/**
 * `candidates`, int64 [1]: rows per group; null: one. `ids`: int64 [rows, new tokens], padding after the end token.
 * `totals`: float32 [rows], the sum of the tokens' log-probabilities, up to and with the end token.
 *
 * A row whose end token has come is frozen: it goes on through the decoder, since a batch has one shape, but yields
 * padding and adds nothing to its total. No row looks at another, so none depends on how long the others take.
 */
export function rowByRow(
  graph: Graph,
  setting: Setting,
  candidates: Value | null,
  pick: Pick,
): { ids: Value; totals: Value } {
  const { decoder, options } = setting;
  const rows = candidates ? graph.op("Mul", [decoder.groups, candidates]) : decoder.groups;
  const numbers = candidates && numbered(graph, rows);
  const before = candidates
    ? graph.op("Gather", [decoder.start.tokens, graph.op("Div", [numbers!, candidates])])
    : decoder.start.tokens;
  const states = [...initial(graph, rows, before), ...decoderState(graph, decoder)];
  const { state: end } = loop(graph, "token", options.maxNewTokens, states, (body, turn, state) => {
    const [live, total, history, ...decoderPart] = state as [Value, Value, Value, ...Value[]];
    const decoded = decode(body, decoder, decoderPart, rows);
    const parents = numbers && body.op("Div", [numbers, decoded.each]);
    const logits = parents ? body.op("Gather", [decoded.logits, parents]) : decoded.logits;
    const picked = pick(body, process(body, logits, history, turn, setting), turn);
    const logProbabilities = body.op("LogSoftmax", [logits], { axis: int(-1) });
    const gained = body.op("GatherElements", [logProbabilities, picked], { axis: int(1) });

    const made = body.op("Where", [live, picked, body.int64([decoder.pad])]);
    const newTotal = body.op("Add", [total, body.op("Mul", [gained, cast(body, live, "float32")])]);
    const ended = body.op("And", [live, body.op("Equal", [made, body.int64([decoder.end])])]);
    const stillLive = body.op("And", [live, body.op("Not", [ended])]);
    const newHistory = body.op("Concat", [history, made], { axis: int(1) });
    return { again: any(body, stillLive), state: [stillLive, newTotal, newHistory, ...decoded.next(made, parents)] };
  });
  const [, total, history] = end;
  const made = [sizeOf(graph, before, 1), sizeOf(graph, history!, 1), graph.int64([1])];
  return { ids: graph.op("Slice", [history!, ...made]), totals: graph.op("Squeeze", [total!, graph.int64([1])]) };
}

/** Per row: whether it is live, the sum of its log-probabilities, the tokens so far. */
function initial(graph: Graph, rows: Value, before: Value): State[] {
  const column = graph.op("Concat", [rows, graph.int64([1])], { axis: int(0) });
  return [
    { initial: cast(graph, filled(graph, column, 1), "bool"), type: "bool", shape: ["all rows", 1] },
    { initial: filled(graph, column, 0), type: "float32", shape: ["all rows", 1] },
    { initial: before, type: "int64", shape: ["all rows", "history"] },
  ];
}

/** Greedy search: the likeliest token. */
export const likeliest: Pick = (graph, scores) => graph.op("ArgMax", [scores], { axis: int(-1), keepdims: int(1) });

/** The token loop where each row goes its own way: greedy search and sampling, which differ in how they pick a token. */
import { cast } from "../blocks.ts";
import { type Graph, int, type Value } from "../onnx/graph.ts";
import { loop, type State } from "../onnx/loop.ts";
import {
  any,
  decode,
  emptyCaches,
  extent,
  filled,
  firstToken,
  process,
  type Setting,
  type Step,
  stepOf,
} from "./steps.ts";

/** Picks the next token, int64 [rows, 1], by scores, float32 [rows, vocabulary]. */
export type Pick = (graph: Graph, scores: Value, step: Step) => Value;

/**
 * `rows`: int64 [1], a multiple of the source's groups. `ids`: int64 [rows, tokens], prompt included, `config.pad` after
 * the end token. `totals`: float32 [rows], the sum of the new tokens' log-probabilities, up to and with the end token.
 *
 * A row whose end token has come is frozen: it goes on through the decoder, since a batch has one shape, but yields
 * padding and adds nothing to its total. No row looks at another, so none depends on how long the others take.
 */
export function rowByRow(graph: Graph, setting: Setting, rows: Value, pick: Pick): { ids: Value; totals: Value } {
  const { config, options } = setting;
  const { last, turns } = extent(graph, options);
  const { state: end } = loop(graph, "token", turns, initial(graph, setting, rows), (body, turn, state) => {
    const [token, live, total, history, ...caches] = state as [Value, Value, Value, Value, ...Value[]];
    const decoded = decode(body, setting, { token, turn, caches });
    const step = stepOf(body, turn, last, options);
    const picked = pick(body, process(body, decoded.logits, history, step, setting), step);
    const logProbabilities = body.op("LogSoftmax", [decoded.logits], { axis: int(-1) });
    const gained = body.op("GatherElements", [logProbabilities, picked], { axis: int(1) });

    const made = body.op("Where", [live, picked, body.int64([config.pad])]);
    const next = body.op("Where", [step.inPrompt, step.given, made]);
    const counts = body.op("And", [live, body.op("Not", [step.inPrompt])]);
    const newTotal = body.op("Add", [total, body.op("Mul", [gained, cast(body, counts, "float32")])]);
    const ended = body.op("And", [counts, body.op("Equal", [next, body.int64([config.end])])]);
    const stillLive = body.op("And", [live, body.op("Not", [ended])]);
    const newHistory = body.op("Concat", [history, next], { axis: int(1) });
    return { again: any(body, stillLive), state: [next, stillLive, newTotal, newHistory, ...decoded.caches] };
  });
  const [, , total, history] = end;
  return { ids: history!, totals: graph.op("Squeeze", [total!, graph.int64([1])]) };
}

/** Per row: the last token, whether it is live, the sum of its log-probabilities, its tokens; then empty caches. */
function initial(graph: Graph, { config, options }: Setting, rows: Value): State[] {
  const column = graph.op("Concat", [rows, graph.int64([1])], { axis: int(0) });
  const first = firstToken(graph, options, column);
  return [
    { initial: first, type: "int64", shape: ["rows", 1] },
    { initial: cast(graph, filled(graph, column, 1), "bool"), type: "bool", shape: ["rows", 1] },
    { initial: filled(graph, column, 0), type: "float32", shape: ["rows", 1] },
    { initial: first, type: "int64", shape: ["rows", "history"] },
    ...emptyCaches(graph, config, rows),
  ];
}

/** Greedy search: the likeliest token. */
export const likeliest: Pick = (graph, scores) => graph.op("ArgMax", [scores], { axis: int(-1), keepdims: int(1) });

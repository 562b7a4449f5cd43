/** The token loop, greedy: the likeliest token, until every row has met its end token. */
import type { Memory } from "./blocks.ts";
import type { TextConfig } from "./config.ts";
import { dataType, type Graph, int, ints, type Value } from "./onnx/graph.ts";
import { loop, type State } from "./onnx/loop.ts";
import { decodeToken } from "./text.ts";
import type { Weights } from "./weights.ts";

/**
 * `batch`: int64 [1], the number of images. `turns`: int64 [], the most tokens. `image`: each layer's memory of the
 * images. `ids`: int64 [batch, tokens], `config.pad` after the end token. `scores`: float32 [batch], the mean
 * log-probability of a row's tokens up to and with its end token.
 *
 * A row whose end token has come is frozen: it goes on through the decoder, since a batch has one shape, but yields
 * padding and adds nothing to its score. No row looks at another, so none depends on how long the others take.
 */
export function greedy(
  graph: Graph,
  weights: Weights,
  config: TextConfig,
  { batch, turns, image }: { batch: Value; turns: Value; image: readonly Memory[] },
): { ids: Value; scores: Value } {
  const run = loop(graph, "token", turns, initialState(graph, config, batch), (body, turn, state) => {
    const [token, live, total, length, ...caches] = state as [Value, Value, Value, Value, ...Value[]];
    const past = memories(caches);
    const { logits, present } = decodeToken(body, weights, config, { token, position: turn, past, image });
    const likeliest = body.op("ArgMax", [logits], { axis: int(-1), keepdims: int(0) });
    const logProbabilities = body.op("LogSoftmax", [logits], { axis: int(-1) });
    const highest = body.op("ReduceMax", [logProbabilities], { axes: ints(-1), keepdims: int(0) });

    const next = body.op("Where", [live, likeliest, body.int64([config.pad])]);
    const counts = body.op("Cast", [live], { to: dataType("float32") });
    const newTotal = body.op("Add", [total, body.op("Mul", [highest, counts])]);
    const newLength = body.op("Add", [length, counts]);
    const ended = body.op("Equal", [next, body.int64([config.end])]);
    const stillLive = body.op("And", [live, body.op("Not", [ended])]);
    return {
      again: any(body, stillLive),
      state: [next, stillLive, newTotal, newLength, ...present.flatMap(({ keys, values }) => [keys, values])],
      emitted: { value: next, type: "int64", shape: ["batch", 1] },
    };
  });
  const [, , total, length] = run.state as [Value, Value, Value, Value];
  const rows = graph.op("Squeeze", [run.emitted, graph.int64([2])]);
  const scores = graph.op("Squeeze", [graph.op("Div", [total, length]), graph.int64([1])]);
  return { ids: graph.op("Transpose", [rows], { perm: ints(1, 0) }), scores };
}

/** Per row: the last token, whether it is live, the sum of its log-probabilities, its length; then empty caches. */
function initialState(graph: Graph, { start, layers, heads, width }: TextConfig, batch: Value): State[] {
  const sized = (...shape: number[]) => graph.op("Concat", [batch, graph.int64(shape)], { axis: int(0) });
  const zeros = graph.op("ConstantOfShape", [sized(1)]);
  const live = graph.op("Not", [graph.op("Cast", [zeros], { to: dataType("bool") })]);
  const empty = graph.op("ConstantOfShape", [sized(heads, 0, width / heads)]);
  const cache: State = { initial: empty, type: "float32", shape: ["batch", heads, "past", width / heads] };
  return [
    { initial: graph.op("Expand", [graph.int64([start]), sized(1)]), type: "int64", shape: ["batch", 1] },
    { initial: live, type: "bool", shape: ["batch", 1] },
    { initial: zeros, type: "float32", shape: ["batch", 1] },
    { initial: zeros, type: "float32", shape: ["batch", 1] },
    ...Array<State>(2 * layers).fill(cache),
  ];
}

/** The caches as state has them, layer by layer: keys, values. */
const memories = (caches: readonly Value[]): Memory[] =>
  Array.from({ length: caches.length / 2 }, (_, i) => ({ keys: caches[2 * i]!, values: caches[2 * i + 1]! }));

/** bool []: whether any of `flags` is true. */
function any(graph: Graph, flags: Value): Value {
  // No device has a reduction over bools.
  const highest = graph.op("ReduceMax", [graph.op("Cast", [flags], { to: dataType("float32") })], { keepdims: int(0) });
  return graph.op("Cast", [highest], { to: dataType("bool") });
}

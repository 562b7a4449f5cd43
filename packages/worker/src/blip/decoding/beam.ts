/**
 * Beam search, as transformers' `_beam_search` (generation/utils.py) does it with `early_stopping=False`, where each
 * group (an image, or a question) is on its own, as if it were searched alone.
 *
 * Each turn the 2 × beams best continuations of a group's beams are looked at. Those among the first half that end are
 * finished; their score is the sum of log-probabilities / (new tokens, the end token included) ^ length penalty, and the
 * best `beams` finished ones are kept. The best that do not end go on. A group closes when its best beam, at its present
 * length, scores no better than the worst of `beams` finished ones, or when nothing can go on. Closed, it goes along in
 * the batch, but nothing that it does counts.
 */
import { cast, numbered, sizeOf } from "../blocks.ts";
import { type Graph, int, ints, type Value } from "../onnx/graph.ts";
import { loop, type State } from "../onnx/loop.ts";
import { allInRow, any, decode, decoderState, filled, IMPOSSIBLE, process, type Setting } from "./steps.ts";

export interface BeamInputs {
  /** int64 []. */
  beams: Value;
  /** float32 []. */
  lengthPenalty: Value;
}

export const beamInputs = (graph: Graph): BeamInputs => ({
  beams: graph.input("beams", "int64", []),
  lengthPenalty: graph.input("length_penalty", "float32", []),
});

/** What does not change from turn to turn. */
interface Frame extends BeamInputs {
  vocabulary: Value;
  /** int64 [1]. */
  beamCount: Value;
  doubleCount: Value;
  /** int64 [1], groups × beams, and int64 [rows]: 0, 1, 2, … */
  rows: Value;
  numbers: Value;
  /** int64 [2]: [groups, beams]. */
  shape: Value;
  /** int64 [groups, beams]: 0, 1, 2, … in each row. */
  places: Value;
  /** int64 [groups, 1]: 0, 1, 2, … */
  groupNumbers: Value;
}

/**
 * The kept hypotheses of each group, the best first. `ids`: int64 [groups, beams, new tokens], padding after the end.
 * `ranks`: float32 [groups, beams], their scores. `totals`: float32 [groups, beams], the sums of the tokens'
 * log-probabilities without penalties.
 */
export function beamSearch(graph: Graph, setting: Setting, inputs: BeamInputs) {
  const { decoder, options } = setting;
  const frame = frameOf(graph, decoder.groups, inputs, decoder.vocabulary);
  const states = [...initial(graph, decoder.start.tokens, frame), ...decoderState(graph, decoder)];
  const { state: end } = loop(graph, "token", options.maxNewTokens, states, (body, turn, state) => {
    const [history, running, sums, finished, scores, finishedSums, open, ...decoderPart] = state as BeamState;
    const decoded = decode(body, decoder, decoderPart, frame.rows);
    const logits = body.op("Gather", [decoded.logits, body.op("Div", [frame.numbers, decoded.each])]);
    const raw = body.op("LogSoftmax", [logits], { axis: int(-1) });
    const flat = rowsOf(body, history);
    const processed = process(body, raw, flat, turn, setting);
    const best = continuations(body, frame, { raw, processed, running, sums });
    const ends = body.op("Or", [
      body.op("Equal", [best.tokens, body.int64(decoder.end)]),
      body.op("Greater", [body.op("Add", [turn, body.int64(2)]), options.maxNewTokens]),
    ]);

    const next = goOn(body, frame, best, ends);
    const nextRows = rowNumbers(body, next.beams, frame.groupNumbers, frame.beamCount);
    const nextHistory = append(body, body.op("Gather", [flat, nextRows]), next.tokens);
    const parents = body.op("Div", [body.op("Reshape", [nextRows, body.int64([-1])]), decoded.each]);

    const candidates = append(
      body,
      body.op("Gather", [flat, rowNumbers(body, best.beams, frame.groupNumbers, frame.beamCount)]),
      best.tokens,
    );
    const length = cast(body, body.op("Add", [turn, body.int64(1)]), "float32");
    const counts = body.op("And", [body.op("And", [ends, firstHalf(body, frame)]), open]);
    const ranks = body.op("Div", [best.scores, body.op("Pow", [length, frame.lengthPenalty])]);
    const kept = keepBest(body, frame, decoder.pad, {
      ids: [finished, candidates],
      scores: [scores, body.op("Where", [counts, ranks, body.float32([IMPOSSIBLE], [])])],
      sums: [finishedSums, best.sums],
    });

    const leader = body.op("Slice", [next.running, body.int64([0]), body.int64([1]), body.int64([1])]);
    const hope = body.op("Div", [leader, body.op("Pow", [length, frame.lengthPenalty])]);
    const worst = body.op("ReduceMin", [kept.scores], { axes: ints(1), keepdims: int(1) });
    const improvable = body.op("And", [body.op("Greater", [hope, worst]), body.op("Not", [allInRow(body, ends)])]);
    const stillOpen = body.op("And", [open, improvable]);
    return {
      again: any(body, stillOpen),
      state: [
        nextHistory,
        next.running,
        next.sums,
        kept.ids,
        kept.scores,
        kept.sums,
        stillOpen,
        ...decoded.next(body.op("Reshape", [next.tokens, body.int64([-1, 1])]), parents),
      ],
    };
  });
  const [, , , ids, ranks, totals] = end as BeamState;
  const made = [sizeOf(graph, decoder.start.tokens, 1), sizeOf(graph, ids, 2), graph.int64([2])];
  return { ids: graph.op("Slice", [ids, ...made]), ranks, totals };
}

/** Ids, scores and raw sums of the beams; ids, scores and raw sums of the finished; open; the decoder's state. */
type BeamState = [Value, Value, Value, Value, Value, Value, Value, ...Value[]];

function frameOf(graph: Graph, groups: Value, { beams, lengthPenalty }: BeamInputs, vocabulary: number): Frame {
  const beamCount = graph.op("Reshape", [beams, graph.int64([1])]);
  const shape = graph.op("Concat", [groups, beamCount], { axis: int(0) });
  const rows = graph.op("Mul", [groups, beamCount]);
  const numbers = numbered(graph, rows);
  const groupNumbers = graph.op("Unsqueeze", [numbered(graph, groups), graph.int64([1])]);
  const grid = graph.op("Reshape", [numbers, shape]);
  return {
    beams,
    lengthPenalty,
    vocabulary: graph.int64(vocabulary),
    beamCount,
    doubleCount: graph.op("Add", [beamCount, beamCount]),
    rows,
    numbers,
    shape,
    places: graph.op("Sub", [grid, graph.op("Mul", [groupNumbers, beamCount])]),
    groupNumbers,
  };
}

/** `before`: int64 [groups, tokens], what all beams begin with. */
function initial(graph: Graph, before: Value, { shape, places }: Frame): State[] {
  const [groups] = graph.ops("Split", [shape], [0, 1], { axis: int(0) });
  const tokens = graph.op("Concat", [shape, sizeOf(graph, before, 1)], { axis: int(0) });
  const first = graph.op("Expand", [graph.op("Unsqueeze", [before, graph.int64([1])]), tokens]);
  // All beams begin alike: only the first one's continuations count.
  const isFirst = graph.op("Equal", [places, graph.int64(0)]);
  const scores = graph.op("Where", [isFirst, graph.float32([0], []), graph.float32([IMPOSSIBLE], [])]);
  const open = graph.op("Concat", [groups!, graph.int64([1])], { axis: int(0) });
  return [
    { initial: first, type: "int64", shape: ["groups", "beams", "history"] },
    { initial: scores, type: "float32", shape: ["groups", "beams"] },
    { initial: filled(graph, shape, 0), type: "float32", shape: ["groups", "beams"] },
    { initial: first, type: "int64", shape: ["groups", "beams", "kept history"] },
    { initial: filled(graph, shape, IMPOSSIBLE), type: "float32", shape: ["groups", "beams"] },
    { initial: filled(graph, shape, 0), type: "float32", shape: ["groups", "beams"] },
    { initial: cast(graph, filled(graph, open, 1), "bool"), type: "bool", shape: ["groups", 1] },
  ];
}

/** Continuations of a group's beams, each [groups, continuations]: by which token, of which beam, how good. */
interface Continuations {
  tokens: Value;
  beams: Value;
  scores: Value;
  sums: Value;
}

/** The 2 × beams best continuations, the best first. `raw` and `processed`: float32 [rows, vocabulary]. */
function continuations(
  graph: Graph,
  { shape, vocabulary, doubleCount }: Frame,
  { raw, processed, running, sums }: { raw: Value; processed: Value; running: Value; sums: Value },
): Continuations {
  const cube = graph.op("Concat", [shape, graph.int64([-1])], { axis: int(0) });
  const inGroups = (scores: Value, before: Value) => {
    const added = graph.op("Add", [
      graph.op("Reshape", [scores, cube]),
      graph.op("Unsqueeze", [before, graph.int64([2])]),
    ]);
    return graph.op("Reshape", [added, graph.int64([0, -1])]);
  };
  const [scores, places] = graph.ops("TopK", [inGroups(processed, running), doubleCount], [0, 1], { axis: int(-1) });
  const beams = graph.op("Div", [places!, vocabulary]);
  return {
    tokens: graph.op("Sub", [places!, graph.op("Mul", [beams, vocabulary])]),
    beams,
    scores: scores!,
    sums: graph.op("GatherElements", [inGroups(raw, sums), places!], { axis: int(1) }),
  };
}

/** The beams of the next turn: the best continuations that do not end. */
function goOn(graph: Graph, { beamCount }: Frame, { tokens, beams, scores, sums }: Continuations, ends: Value) {
  const out = graph.op("Mul", [cast(graph, ends, "float32"), graph.float32([IMPOSSIBLE], [])]);
  const [running, chosen] = graph.ops("TopK", [graph.op("Add", [scores, out]), beamCount], [0, 1], { axis: int(-1) });
  const of = (values: Value) => graph.op("GatherElements", [values, chosen!], { axis: int(1) });
  return { tokens: of(tokens), beams: of(beams), running: running!, sums: of(sums) };
}

/** The best `beams` of the finished hypotheses and the ones that have just finished. */
function keepBest(
  graph: Graph,
  { beamCount, doubleCount, groupNumbers }: Frame,
  pad: number,
  { ids, scores, sums }: Record<"ids" | "scores" | "sums", readonly [Value, Value]>,
) {
  const [best, places] = graph.ops("TopK", [graph.op("Concat", scores, { axis: int(1) }), beamCount], [0, 1], {
    axis: int(-1),
  });
  const longer = graph.op("Pad", [ids[0], graph.int64([0, 0, 0, 0, 0, 1]), graph.int64(pad)]);
  const all = rowsOf(graph, graph.op("Concat", [longer, ids[1]], { axis: int(1) }));
  const perGroup = graph.op("Add", [beamCount, doubleCount]);
  return {
    ids: graph.op("Gather", [all, rowNumbers(graph, places!, groupNumbers, perGroup)]),
    scores: best!,
    sums: graph.op("GatherElements", [graph.op("Concat", sums, { axis: int(1) }), places!], { axis: int(1) }),
  };
}

/** bool [1, 2 × beams]: the first half true. */
function firstHalf(graph: Graph, { beamCount, doubleCount }: Frame): Value {
  const counted = graph.op("CumSum", [graph.op("Expand", [graph.int64([1]), doubleCount]), graph.int64(0)], {
    exclusive: int(1),
  });
  return graph.op("Unsqueeze", [graph.op("Less", [counted, beamCount]), graph.int64([0])]);
}

/** [groups, some, tokens] as [groups × some, tokens]. */
function rowsOf(graph: Graph, ids: Value): Value {
  const tokens = graph.op("Shape", [ids], { start: int(2), end: int(3) });
  return graph.op("Reshape", [ids, graph.op("Concat", [graph.int64([-1]), tokens], { axis: int(0) })]);
}

/** From places within a group, int64 [groups, n], to numbers of rows, where a group has `perGroup` (int64 [1]) rows. */
const rowNumbers = (graph: Graph, places: Value, groupNumbers: Value, perGroup: Value): Value =>
  graph.op("Add", [places, graph.op("Mul", [groupNumbers, perGroup])]);

/** ids, [groups, n, tokens], with one token more each, [groups, n]. */
const append = (graph: Graph, ids: Value, tokens: Value): Value =>
  graph.op("Concat", [ids, graph.op("Unsqueeze", [tokens, graph.int64([2])])], { axis: int(2) });

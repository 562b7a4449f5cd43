/** ONNX's Loop, with its calling convention (trip count, condition, state) in one place. */
import { type Dimension, type Graph, subgraph, type Value } from "./graph.ts";
import type { DataType } from "./schema.ts";

/** A value that goes from one turn to the next. Sizes that change between turns have a name in place of a number. */
export interface State {
  initial: Value;
  type: DataType;
  shape: readonly Dimension[];
}

/** What one turn hands back. */
export interface Turn {
  /** bool []: whether another turn follows. */
  again: Value;
  /** The new state, in the order of the old. */
  state: Value[];
  /** Values that are kept from every turn. */
  kept?: (Omit<State, "initial"> & { value: Value })[];
}

/** Another name for a size after the turn: equal names are equal sizes to the runtime, which reuses memory by them. */
const after = (size: Dimension): Dimension => (typeof size === "number" ? size : `${size} after`);

/**
 * At most `turns` (int64 []) turns, at least one. `body` adds the nodes of one turn to the graph it is given; `turn`,
 * int64 [], counts from 0. Returns the last state, and what was kept, stacked: [turns made, ...shape].
 */
export function loop(
  graph: Graph,
  name: string,
  turns: Value,
  states: readonly State[],
  body: (graph: Graph, turn: Value, state: Value[]) => Turn,
): { state: Value[]; kept: Value[] } {
  const inner = graph.inside(name);
  const turn = inner.input(`${name}.turn`, "int64", []);
  inner.input(`${name}.condition`, "bool", []);
  const state = states.map(({ type, shape }, i) => inner.input(`${name}.state.${i}`, type, shape));
  const end = body(inner, turn, state);
  const kept = end.kept ?? [];
  inner.output(end.again, "bool", []);
  for (const [i, value] of end.state.entries()) inner.output(value, states[i]!.type, states[i]!.shape.map(after));
  for (const { value, type, shape } of kept) inner.output(value, type, shape);

  const inputs = [turns, null, ...states.map(({ initial }) => initial)];
  const wanted = [...states, ...kept].map((_, i) => i);
  const outputs = graph.ops("Loop", inputs, wanted, { body: subgraph(inner) });
  return { state: outputs.slice(0, states.length), kept: outputs.slice(states.length) };
}

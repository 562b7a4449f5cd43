/** What the token loop asks of a language model: a transformer that makes a text token by token. */
import type { Memory } from "../blocks.ts";
import type { Graph, Value } from "../onnx/graph.ts";

export interface Decoder {
  vocabulary: number;
  /** Token ids: what ends a text, and what follows the end. */
  end: number;
  pad: number;
  /** Of self-attention. */
  layers: number;
  heads: number;
  width: number;
  /** int64 [1]: images or questions that texts are about; at the start each is a row. */
  groups: Value;
  start: Start;
  /** The token embeddings, [rows, 1, width], of `tokens`, int64 [rows, 1]. */
  embed(graph: Graph, tokens: Value): Value;
  /**
   * Further positions, [rows, positions, width], after those in `past` (each layer's). `mask`: int32 [rows, past and new
   * positions]. `logits`: float32 [rows, vocabulary], of the token after the last position; `present`: `past` with the
   * new positions added.
   */
  step(
    graph: Graph,
    step: { embedded: Value; mask: Value | null; past: readonly Memory[] },
  ): { logits: Value; present: Memory[] };
}

/** What stands before the first new token. */
export interface Start {
  /** [groups, positions, width]: embeddings. */
  embedded: Value;
  /** int32 [groups, positions]: 0 for padding; null where there is none. */
  mask: Value | null;
  /** int64 [groups, tokens]: what a penalty on repetition sees. */
  tokens: Value;
}

/** Compiled graphs, taken apart again. */
import { ModelProto } from "../../src/blip/onnx/schema.ts";

export interface Node {
  op_type: string;
  domain: string;
  name: string;
  input: string[];
  output: string[];
  attribute: { name: string; g: GraphProto | null; i: unknown; ints: unknown[]; type: number }[];
}

export interface ValueInfo {
  name: string;
  type: object;
}

export interface GraphProto {
  node: Node[];
  initializer: {
    name: string;
    data_type: number;
    dims: { toNumber(): number }[];
    external_data: { key: string; value: string }[];
  }[];
  input: ValueInfo[];
  output: ValueInfo[];
}

export const decodeGraph = (bytes: Uint8Array): GraphProto =>
  (ModelProto.decode(bytes) as unknown as { graph: GraphProto }).graph;

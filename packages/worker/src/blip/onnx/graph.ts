/// <reference lib="esnext.float16" />
/** Builds ONNX graphs node by node. A `Value` names a tensor; which shape it has is for the caller to know. */
import { ATTRIBUTE_TYPES, DATA_TYPES, type DataType, EXTERNAL, ModelProto } from "./schema.ts";

declare const brand: unique symbol;
/** A tensor in a graph, by its name. A subgraph may use the values of the graph around it. */
export type Value = string & { readonly [brand]: true };

/** Every op that capfleet uses, and its domain: "" is ONNX's own. */
const DOMAINS = {
  Add: "",
  And: "",
  ArgMax: "",
  Cast: "",
  Concat: "",
  ConstantOfShape: "",
  CumSum: "",
  Div: "",
  Equal: "",
  Expand: "",
  Gather: "",
  GatherElements: "",
  Greater: "",
  Identity: "",
  LayerNormalization: "",
  Less: "",
  LogSoftmax: "",
  Loop: "",
  Max: "",
  Min: "",
  Mul: "",
  Not: "",
  Or: "",
  Pad: "",
  Pow: "",
  ReduceL2: "",
  ReduceMax: "",
  ReduceMean: "",
  ReduceMin: "",
  ReduceSum: "",
  Relu: "",
  Reshape: "",
  ScatterElements: "",
  Shape: "",
  Slice: "",
  Softmax: "",
  Split: "",
  Squeeze: "",
  Sub: "",
  TopK: "",
  Transpose: "",
  Unsqueeze: "",
  Where: "",
  BiasGelu: "com.microsoft",
  DynamicQuantizeMatMul: "com.microsoft",
  FusedMatMul: "com.microsoft",
  MatMulNBits: "com.microsoft",
  MultiHeadAttention: "com.microsoft",
  SkipLayerNormalization: "com.microsoft",
} as const;
export type Op = keyof typeof DOMAINS;

/** The opset decides which version of each op is meant; 17 is the first with LayerNormalization. */
const OPSETS = [
  { domain: "", version: 17 },
  { domain: "com.microsoft", version: 1 },
];
const IR_VERSION = 8;

type Attribute = { i: number } | { f: number } | { ints: readonly number[] } | { g: Graph };
type Attributes = Readonly<Record<string, Attribute>>;
export const int = (i: number): Attribute => ({ i });
export const float = (f: number): Attribute => ({ f });
export const ints = (...values: number[]): Attribute => ({ ints: values });
export const subgraph = (g: Graph): Attribute => ({ g });
export const dataType = (type: DataType): Attribute => ({ i: DATA_TYPES[type] });

/** A size, or the name of one that is known only when the model runs. */
export type Dimension = number | string;

/** Where a tensor's bytes are: `length` bytes from `offset` on in `file`, which is in the model's folder. */
export interface External {
  file: string;
  offset: number;
  length: number;
}

/** The type that a graph's real numbers have where nothing else is said. */
export type Real = "float32" | "float16";

/** What a graph consists of; several `Graph`s may add to one. */
interface Content {
  name: string;
  /** Shared with subgraphs: a name must be unique among them all. */
  names: { next: number };
  nodes: object[];
  initializers: object[];
  inputs: object[];
  outputs: object[];
}

const newContent = (name: string, names: { next: number }): Content => ({
  name,
  names,
  nodes: [],
  initializers: [],
  inputs: [],
  outputs: [],
});

export class Graph {
  readonly real: Real;
  readonly #content: Content;

  constructor(name: string, real: Real, content: Content = newContent(name, { next: 0 })) {
    this.real = real;
    this.#content = content;
  }

  /** An empty graph for the body of a Loop in this one, whose values it may use. */
  inside(name: string): Graph {
    return new Graph(name, this.real, newContent(name, this.#content.names));
  }

  /** The same graph, for parts of it whose real numbers have another type. */
  as(real: Real): Graph {
    return new Graph(this.#content.name, real, this.#content);
  }

  input(name: string, type: DataType, shape: readonly Dimension[]): Value {
    this.#content.inputs.push(valueInfo(name, type, shape));
    return name as Value;
  }

  output(value: Value, type: DataType, shape: readonly Dimension[]): void {
    this.#content.outputs.push(valueInfo(value, type, shape));
  }

  /** A node's first output. A null input is one that the op can do without. */
  op(op: Op, inputs: readonly (Value | null)[], attributes: Attributes = {}): Value {
    return this.ops(op, inputs, [0], attributes)[0]!;
  }

  /** Those outputs of a node whose numbers are in `wanted`, ascending. */
  ops(op: Op, inputs: readonly (Value | null)[], wanted: readonly number[], attributes: Attributes = {}): Value[] {
    const name = this.#unique(op);
    const values = wanted.map((i) => `${name}.${i}` as Value);
    const outputs = Array<string>(wanted.at(-1)! + 1).fill("");
    for (const [i, at] of wanted.entries()) outputs[at] = values[i]!;
    this.#push(op, name, inputs, outputs, attributes);
    return values;
  }

  /** The same tensor under a name of the caller's choice. */
  named(name: string, value: Value): Value {
    this.#push("Identity", name, [value], [name], {});
    return name as Value;
  }

  /** An int64 constant: a vector, or with a number a scalar. */
  int64(content: number | readonly number[]): Value {
    const numbers = typeof content === "number" ? [content] : content;
    const bytes = new Uint8Array(BigInt64Array.from(numbers, BigInt).buffer);
    return this.#constant("int64", typeof content === "number" ? [] : [numbers.length], bytes);
  }

  /** A float32 constant. */
  float32(numbers: readonly number[], shape: readonly number[]): Value {
    return this.#constant("float32", shape, new Uint8Array(Float32Array.from(numbers).buffer));
  }

  /** A constant of the graph's real type. */
  reals(numbers: readonly number[], shape: readonly number[]): Value {
    if (this.real === "float32") return this.float32(numbers, shape);
    return this.#constant("float16", shape, new Uint8Array(Float16Array.from(numbers).buffer));
  }

  /** To float32, for what float16 is too coarse or too narrow for. */
  toFloat32(value: Value): Value {
    return this.real === "float32" ? value : this.op("Cast", [value], { to: dataType("float32") });
  }

  /** A constant whose bytes are in another file. */
  external(name: string, type: DataType, shape: readonly number[], { file, offset, length }: External): Value {
    const external_data = Object.entries({ location: file, offset, length }).map(([key, value]) => ({
      key,
      value: String(value),
    }));
    const data_type = DATA_TYPES[type];
    this.#content.initializers.push({ name, dims: shape, data_type, external_data, data_location: EXTERNAL });
    return name as Value;
  }

  /** The graph as a GraphProto. */
  proto(): object {
    const { name, nodes, initializers, inputs, outputs } = this.#content;
    return { name, node: nodes, initializer: initializers, input: inputs, output: outputs };
  }

  #push(
    op: Op,
    name: string,
    inputs: readonly (Value | null)[],
    output: readonly string[],
    attributes: Attributes,
  ): void {
    const attribute = Object.entries(attributes).map(attributeProto);
    const input = inputs.map((value) => value ?? "");
    this.#content.nodes.push({ name, op_type: op, domain: DOMAINS[op], input, output, attribute });
  }

  #constant(type: DataType, dims: readonly number[], raw_data: Uint8Array): Value {
    const name = this.#unique("const");
    this.#content.initializers.push({ name, dims, data_type: DATA_TYPES[type], raw_data });
    return name as Value;
  }

  #unique(stem: string): string {
    return `${stem}_${this.#content.names.next++}`;
  }
}

/** The bytes of a model file with this graph. */
export function encodeModel(graph: Graph): Uint8Array {
  const model = { ir_version: IR_VERSION, producer_name: "capfleet", graph: graph.proto(), opset_import: OPSETS };
  return ModelProto.encode(model).finish();
}

function attributeProto([name, attribute]: [string, Attribute]): object {
  if ("g" in attribute) return { name, type: ATTRIBUTE_TYPES.g, g: attribute.g.proto() };
  if ("ints" in attribute) return { name, type: ATTRIBUTE_TYPES.ints, ints: attribute.ints };
  if ("f" in attribute) return { name, type: ATTRIBUTE_TYPES.f, f: attribute.f };
  return { name, type: ATTRIBUTE_TYPES.i, i: attribute.i };
}

function valueInfo(name: string, type: DataType, shape: readonly Dimension[]): object {
  const dim = shape.map((size) => (typeof size === "number" ? { dim_value: size } : { dim_param: size }));
  return { name, type: { tensor_type: { elem_type: DATA_TYPES[type], shape: { dim } } } };
}

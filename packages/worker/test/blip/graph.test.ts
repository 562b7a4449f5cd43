import { readFile } from "node:fs/promises";
import { beforeAll, expect, test } from "vitest";
import { compileEngine } from "../../src/blip/index.ts";
import { ModelProto } from "../../src/blip/onnx/schema.ts";
import { Folder, ref } from "./checkpoints.ts";

/**
 * Ops with kernels in ONNX Runtime's CUDA provider at opset 17, for the types that the graphs use them with (docs/
 * OperatorKernels.md of ONNX Runtime). Shape works on the host there, and Loop runs its body on the device.
 */
const CUDA_KERNELS: Record<string, string[]> = {
  "": [
    ...["Add", "And", "ArgMax", "Cast", "Concat", "ConstantOfShape", "Conv", "Cos", "CumSum", "Div", "Equal", "Erf"],
    ...["Exp", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Gemm", "Greater", "Identity", "If"],
    ...["LayerNormalization", "Less", "Log", "LogSoftmax", "Loop", "MatMul", "Max", "Mul", "Neg", "Not", "Or", "Pow"],
    ...[
      "Range",
      "Reciprocal",
      "ReduceLogSumExp",
      "ReduceMax",
      "ReduceMean",
      "ReduceMin",
      "ReduceSum",
      "Reshape",
      "Scan",
    ],
    ...["ScatterElements", "ScatterND", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub"],
    ...["Tanh", "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "Xor"],
  ],
  "com.microsoft": ["Attention", "BiasGelu", "FusedMatMul", "Gelu", "MultiHeadAttention", "SkipLayerNormalization"],
};

interface Node {
  op_type: string;
  domain: string;
  name: string;
  input: string[];
  output: string[];
  attribute: { name: string; g: GraphProto | null; ints: unknown[] }[];
}
interface GraphProto {
  node: Node[];
  initializer: { name: string; dims: { toNumber(): number }[]; external_data: { key: string; value: string }[] }[];
}

let graph: GraphProto;
let body: GraphProto;
let size: number;

beforeAll(async () => {
  await using folder = await Folder.withCheckpoint("narrow-text-to-last-position");
  await compileEngine(folder.at("checkpoint"), ref, folder.at("engine"));
  const bytes = await readFile(folder.at("engine", "caption.onnx"));
  size = bytes.length;
  graph = (ModelProto.decode(bytes) as unknown as { graph: GraphProto }).graph;
  body = graph.node.find((node) => node.op_type === "Loop")!.attribute.find(({ name }) => name === "body")!.g!;
});

test("every op has kernels on CPU and CUDA", () => {
  const used = new Set([...graph.node, ...body.node].map(({ domain, op_type }) => `${domain}:${op_type}`));
  const known = Object.entries(CUDA_KERNELS).flatMap(([domain, ops]) => ops.map((op) => `${domain}:${op}`));
  expect([...used].filter((op) => !known.includes(op))).toEqual([]);
  expect(used).toContain("com.microsoft:MultiHeadAttention");
});

test("the image's keys and values are computed before the loop", () => {
  const project = (nodes: Node[]) =>
    nodes.flatMap(({ input }) => input).filter((name) => /crossattention\.self\.(key|value)\.weight$/.test(name))
      .length;
  expect(project(graph.node)).toBe(4);
  expect(project(body.node)).toBe(0);
});

test("a name is given once, in the graph and its loop together", () => {
  const names = [...graph.node, ...body.node].flatMap(({ output }) => output).filter((name) => name !== "");
  expect(new Set(names).size).toBe(names.length);
});

test("the weights are beside the graph, once each, and not in it", () => {
  const outside = graph.initializer.filter(({ external_data }) => external_data.length > 0);
  const ranges = outside.map(({ dims, external_data }) => {
    const { location, offset, length } = Object.fromEntries(external_data.map(({ key, value }) => [key, value]));
    expect(location).toBe("weights.bin");
    expect(Number(length)).toBe(4 * dims.reduce((product, dim) => product * dim.toNumber(), 1));
    return [Number(offset), Number(offset) + Number(length)] as const;
  });
  for (const [i, [begin]] of ranges.entries()) if (i > 0) expect(begin).toBeGreaterThanOrEqual(ranges[i - 1]![1]);
  expect(outside.filter(({ name }) => name.endsWith("word_embeddings.weight"))).toHaveLength(1);
  expect(size).toBeLessThan(64 * 1024);
});

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { BUNDLED_MODELS } from "@capfleet/shared/config";
import type { Precision } from "@capfleet/shared/contract";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type GraphName, graphFile } from "../../src/blip/folder.ts";
import { compileEngine } from "../../src/blip/index.ts";
import { Folder, ref } from "./checkpoints.ts";
import { decodeGraph, type GraphProto, type Node } from "./protos.ts";

/**
 * Ops with kernels in ONNX Runtime's CUDA provider at opset 17, for the types that the graphs use them with (docs/
 * OperatorKernels.md of ONNX Runtime). Shape works on the host there, and Loop runs its body on the device.
 */
const CUDA_KERNELS: Record<string, string> = {
  "": `Add And ArgMax Cast Concat ConstantOfShape Conv Cos CumSum Div Equal Erf Exp Expand Flatten Gather GatherElements
    GatherND Gemm Greater Identity If LayerNormalization Less Log LogSoftmax Loop MatMul Max Min Mul Neg Not Or Pad Pow
    Range Reciprocal ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceSum Reshape Scan ScatterElements
    ScatterND Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Tanh Tile TopK Transpose Unsqueeze Where Xor`,
  "com.microsoft": "Attention BiasGelu FusedMatMul Gelu MultiHeadAttention SkipLayerNormalization",
};

const MODELS: Record<string, GraphName[]> = {
  "demo-caption": ["vision", "greedy", "sample", "beam"],
  "demo-vqa": ["vision", "question", "greedy", "sample", "beam", "rank"],
  "demo-itm": ["vision", "match", "text"],
};
const PRECISIONS: Precision[] = ["fp32", "fp16", "int8"];
/** Of a number, by TensorProto.DataType. */
const BYTES: Record<number, number> = { 1: 4, 2: 1, 3: 1, 10: 2 };

let folder: Folder;
const graphs = new Map<string, { graph: GraphProto; size: number }>();

beforeAll(async () => {
  folder = await Folder.make();
  for (const [model, names] of Object.entries(MODELS)) {
    for (const precision of PRECISIONS) {
      const engine = folder.at(`${model}.${precision}`);
      await compileEngine(join(BUNDLED_MODELS, model), { ...ref, precision }, engine);
      for (const name of names) {
        const bytes = await readFile(join(engine, graphFile(name)));
        graphs.set(`${model} ${precision} ${name}`, { graph: decodeGraph(bytes), size: bytes.length });
      }
    }
  }
});
afterAll(() => folder[Symbol.asyncDispose]());

const bodiesOf = (graph: GraphProto): GraphProto[] =>
  graph.node.flatMap(({ attribute }) => attribute.filter(({ name }) => name === "body").map(({ g }) => g!));
const nodesOf = (graph: GraphProto): Node[] => [graph, ...bodiesOf(graph)].flatMap(({ node }) => node);
const every = () => [...graphs].map(([name, { graph, size }]) => ({ name, graph, size }));

test("every op of a graph for GPUs has kernels there", () => {
  const known = new Set(
    Object.entries(CUDA_KERNELS).flatMap(([domain, ops]) => ops.split(/\s+/).map((op) => `${domain}:${op}`)),
  );
  for (const { name, graph } of every()) {
    if (name.includes("int8")) continue;
    const used = new Set(nodesOf(graph).map(({ domain, op_type }) => `${domain}:${op_type}`));
    expect({ name, unknown: [...used].filter((op) => !known.has(op)) }).toEqual({ name, unknown: [] });
    expect(used).toContain("com.microsoft:MultiHeadAttention");
  }
});

test("the keys and values of what is looked at are computed before the loop", () => {
  const project = (nodes: Node[]) =>
    nodes.flatMap(({ input }) => input).filter((name) => /crossattention\.self\.(key|value)\.weight/.test(name)).length;
  for (const name of ["greedy", "sample", "beam"]) {
    const { graph } = graphs.get(`demo-caption fp32 ${name}`)!;
    expect(project(graph.node)).toBeGreaterThan(0);
    const [tokens] = bodiesOf(graph);
    expect(project(tokens!.node)).toBe(0);
  }
});

test("a name is given once, in a graph and its loops together", () => {
  for (const { graph } of every()) {
    const names = nodesOf(graph).flatMap(({ output }) => output.filter((name) => name !== ""));
    expect(new Set(names).size).toBe(names.length);
  }
});

test("the weights are beside the graphs, in their precision, and not in them", () => {
  for (const { name, graph, size } of every()) {
    const outside = graph.initializer.filter(({ external_data }) => external_data.length > 0);
    for (const { dims, data_type, external_data } of outside) {
      const { location, length } = Object.fromEntries(external_data.map(({ key, value }) => [key, value]));
      expect(location).toBe("weights.bin");
      const numbers = dims.reduce((product, dim) => product * dim.toNumber(), 1);
      expect(Number(length)).toBe(BYTES[data_type]! * numbers);
    }
    const types = new Set(outside.map(({ data_type }) => data_type));
    const [model, precision, part] = name.split(" ") as [string, Precision, GraphName];
    // Signed columns where one image is seen at a time; unsigned blocks for texts.
    const seesImages = model === "demo-caption" || ["vision", "question", "match"].includes(part);
    const int8 = [1, ...(part === "vision" ? [] : [2]), ...(seesImages ? [3] : [])];
    const expected = { fp32: [1], fp16: [10], int8 }[precision];
    expect({ name, types: [...types].sort() }).toEqual({ name, types: expected });
    expect(size).toBeLessThan(64 * 1024);
  }
});

describe("float16", () => {
  test("no norm, probability or log-probability is computed in it", () => {
    for (const { name, graph } of every()) {
      if (!name.includes("fp16")) continue;
      const used = new Set(nodesOf(graph).map(({ op_type }) => op_type));
      // CUDA adds up in float16 here; LayerNormalization and attention's softmax use float32 inside.
      expect(used).not.toContain("SkipLayerNormalization");
      const types = new Map(nodesOf(graph).flatMap((node) => node.output.map((output) => [output, node] as const)));
      for (const node of nodesOf(graph)) {
        if (!/^(LogSoftmax|Softmax|ReduceL2)$/.test(node.op_type)) continue;
        expect({ name, op: node.op_type, float32: comesFromFloat32(node.input[0]!, types) }).toMatchObject({
          float32: true,
        });
      }
    }
  });
});

/** Whether a value descends from a Cast to float32, with nothing but ops that keep the type in between. */
function comesFromFloat32(value: string, made: Map<string, Node>): boolean {
  const node = made.get(value);
  if (!node) return false;
  if (node.op_type === "Cast") return node.attribute.some(({ name, i }) => name === "to" && Number(i) === 1);
  return node.input.some((input) => comesFromFloat32(input, made));
}

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { BUNDLED_MODELS } from "@capfleet/shared/config";
import type { Precision } from "@capfleet/shared/contract";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type GraphName, graphFile } from "../../src/blip/folder.ts";
import { compileEngine } from "../../src/blip/index.ts";
import { Folder, PARITY_CASES, ref } from "./checkpoints.ts";
import { decodeGraph, type GraphProto, type Node } from "./protos.ts";

/**
 * Ops with kernels in ONNX Runtime's CUDA provider at opset 17, for the types that the graphs use them with (docs/
 * OperatorKernels.md of ONNX Runtime). Shape works on the host there, and Loop runs its body on the device.
 */
const CUDA_KERNELS: Record<string, string> = {
  "": `Add And ArgMax Cast Concat ConstantOfShape Conv Cos CumSum Div Equal Erf Exp Expand Flatten Gather GatherElements
    GatherND Gemm Greater Identity If LayerNormalization Less Log LogSoftmax Loop MatMul Max Min Mul Neg Not Or Pad Pow
    Range Reciprocal Relu ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceSum Reshape Scan ScatterElements
    ScatterND Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Tanh Tile TopK Transpose Unsqueeze Where Xor`,
  "com.microsoft": "Attention BiasGelu FusedMatMul Gelu MultiHeadAttention SkipLayerNormalization",
};

interface Model {
  checkpoint: string;
  graphs: GraphName[];
  precisions: Precision[];
}

const BLIP: Precision[] = ["fp32", "fp16", "int8"];
const MODELS: Record<string, Model> = {
  "demo-caption": {
    checkpoint: join(BUNDLED_MODELS, "demo-caption"),
    graphs: ["vision", "greedy", "sample", "beam"],
    precisions: BLIP,
  },
  "demo-vqa": {
    checkpoint: join(BUNDLED_MODELS, "demo-vqa"),
    graphs: ["vision", "question", "greedy", "sample", "beam", "rank"],
    precisions: BLIP,
  },
  "demo-itm": {
    checkpoint: join(BUNDLED_MODELS, "demo-itm"),
    graphs: ["vision", "match", "text"],
    precisions: BLIP,
  },
  "blip2-opt": {
    checkpoint: join(PARITY_CASES, "blip2-opt-float16-sharded"),
    graphs: ["vision", "greedy", "sample", "beam", "rank"],
    precisions: [...BLIP, "int4"],
  },
  "blip2-itm": {
    checkpoint: join(PARITY_CASES, "blip2-itm-float16-sharded"),
    graphs: ["vision", "match", "text"],
    precisions: BLIP,
  },
};
/** Of a number, by TensorProto.DataType. */
const BYTES: Record<number, number> = { 1: 4, 2: 1, 3: 1, 10: 2 };

let folder: Folder;
const graphs = new Map<string, { graph: GraphProto; size: number }>();

beforeAll(async () => {
  folder = await Folder.make();
  for (const [model, { checkpoint, graphs: names, precisions }] of Object.entries(MODELS)) {
    for (const precision of precisions) {
      const engine = folder.at(`${model}.${precision}`);
      await compileEngine(checkpoint, { ...ref, precision }, engine);
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
    if (/int[48]/.test(name)) continue;
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
    expect({ name, types: [...types].sort() }).toEqual({ name, types: expectedTypes(name) });
    expect(size).toBeLessThan(64 * 1024);
  }
});

/** By TensorProto.DataType: float32 1, uint8 2, int8 3, float16 10. */
function expectedTypes(name: string): number[] {
  const [model, precision, part] = name.split(" ") as [string, Precision, GraphName];
  // The Q-Former is float32 in every precision; what is left of these graphs is a head, which is never rounded.
  const withQFormer = model.startsWith("blip2") && ["vision", "match", "text"].includes(part);
  if (precision === "fp32") return [1];
  if (precision === "fp16") return withQFormer ? [1, 10] : [10];
  if (withQFormer) return part === "vision" ? [1, 3] : [1];
  // Signed columns where one image is seen at a time; unsigned blocks for texts, whose table of words is float16.
  const seesImages = model === "demo-caption" || ["vision", "question", "match"].includes(part);
  return [1, ...(part === "vision" ? [] : [10, 2]), ...(seesImages ? [3] : [])];
}

test("4 bits are the language model's layers, and nothing else", () => {
  const blocks = (name: GraphName) =>
    nodesOf(graphs.get(`blip2-opt int4 ${name}`)!.graph)
      .filter(({ op_type }) => op_type === "MatMulNBits")
      .map(({ input, attribute }) => [input[1]!, Number(attribute.find(({ name }) => name === "bits")!.i)] as const);
  for (const name of ["greedy", "sample", "beam", "rank"] as const) {
    expect(blocks(name).length).toBeGreaterThan(4);
    for (const [weight, bits] of blocks(name))
      expect([weight, bits]).toEqual([weight, weight.includes(".layers.") ? 4 : 8]);
  }
  expect(blocks("vision")).toEqual([]);
});

describe("float16", () => {
  test("the Q-Former and its queries stay float32, all else is float16", () => {
    for (const { name, graph } of every()) {
      if (!/^blip2-\w+ fp16 (vision|match|text)$/.test(name)) continue;
      const weights = graph.initializer.filter(({ external_data }) => external_data.length > 0);
      const exact = (weight: string) => /^(qformer|query_tokens|embeddings)\b/.test(weight);
      const wrong = weights.filter(({ name, data_type }) => data_type !== (exact(name) ? 1 : 10));
      expect({ name, wrong: wrong.map(({ name }) => name) }).toEqual({ name, wrong: [] });
      expect(weights.some(({ name }) => exact(name))).toBe(true);
    }
  });

  test("no norm, probability or log-probability is computed in it", () => {
    for (const { name, graph } of every()) {
      if (!name.includes("fp16")) continue;
      // CUDA adds up in the type of its inputs here; LayerNormalization and attention's softmax use float32 inside.
      const skips = nodesOf(graph).filter(({ op_type }) => op_type === "SkipLayerNormalization");
      expect(skips.filter(({ input }) => !input[2]!.endsWith(" float32"))).toEqual([]);
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

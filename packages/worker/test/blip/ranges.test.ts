/**
 * ONNX Runtime's CPU provider computes float16 graphs in float32, so an overflow would not show here. Instead the float32
 * graphs are made to tell the largest magnitude of everything that float16 graphs hold in float16: it has to stay below
 * a quarter of what float16 can hold.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BUNDLED_MODELS } from "@capfleet/shared/config";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { expect, test } from "vitest";
import { type GraphName, graphFile } from "../../src/blip/folder.ts";
import { compileEngine } from "../../src/blip/index.ts";
import { ModelProto } from "../../src/blip/onnx/schema.ts";
import { float32, int64, padded } from "../../src/blip/tensors.ts";
import { Texts } from "../../src/blip/tokenizer.ts";
import { Folder, PARITY_CASES, ref } from "./checkpoints.ts";
import type { GraphProto, Node } from "./protos.ts";

const FLOAT16_MAX = 65_504;
/** Outputs that are float16 in a float16 graph; SkipLayerNormalization stands for a sum (3) and its norm (0). */
const WATCHED: Record<string, number[]> = {
  BiasGelu: [0],
  FusedMatMul: [0],
  LayerNormalization: [0],
  MultiHeadAttention: [0],
  Relu: [0],
  SkipLayerNormalization: [0, 3],
};
const FLOAT32 = 1;

/** Adds an output with the least and the largest number of each watched value; in the loop's body, of each turn. */
function watch(graph: GraphProto): string[] {
  const added: string[] = [];
  for (const node of [...graph.node]) {
    const body = node.attribute.find(({ name }) => name === "body")?.g;
    if (body) {
      const inside = watch(body);
      // A Loop hands out, stacked, what its body hands out beyond the state.
      node.output.push(...inside.map((name) => `${name}.turns`));
      for (const name of inside) graph.output.push(floats(`${name}.turns`, ["turns"]));
      added.push(...inside.map((name) => `${name}.turns`));
    }
    for (const at of WATCHED[node.op_type] ?? []) {
      const value = node.output[at];
      if (!value) continue;
      for (const op_type of ["ReduceMin", "ReduceMax"]) {
        const name = `${value}.${op_type}`;
        const attribute = [{ name: "keepdims", type: 2, i: 0 }] as unknown as Node["attribute"];
        graph.node.push({ op_type, domain: "", name, input: [value], output: [name], attribute });
        graph.output.push(floats(name, []));
        added.push(name);
      }
    }
  }
  return added;
}

const floats = (name: string, dims: string[]) => ({
  name,
  type: { tensor_type: { elem_type: FLOAT32, shape: { dim: dims.map((dim_param) => ({ dim_param })) } } },
});

/** Runs a graph of an engine, and says how large its numbers get. */
async function run(engine: string, name: GraphName, feeds: Record<string, Tensor>) {
  const model = ModelProto.decode(await readFile(join(engine, graphFile(name)))) as unknown as { graph: GraphProto };
  const watched = watch(model.graph);
  const file = join(engine, `watched-${name}.onnx`);
  await writeFile(file, ModelProto.encode(model as never).finish());
  const session = await InferenceSession.create(file);
  const outputs = await session.run(feeds);
  await session.release();
  expect(watched.length).toBeGreaterThan(10);
  const largest = watched.map((name) => Math.max(...Array.from(outputs[name]!.data as Float32Array, Math.abs)));
  return { outputs, largest: Math.max(...largest) };
}

/** The last has random weights, there being no trained BLIP-2 here: it only shows that nothing runs away by itself. */
const MODELS = {
  "demo-caption": join(BUNDLED_MODELS, "demo-caption"),
  "demo-vqa": join(BUNDLED_MODELS, "demo-vqa"),
  "demo-itm": join(BUNDLED_MODELS, "demo-itm"),
  "blip2-opt": join(PARITY_CASES, "blip2-opt-new-layout"),
};

const DECODING = {
  prompt: int64([5, 5, 5], [3, 1]),
  max_new_tokens: int64([20], []),
  min_new_tokens: int64([0], []),
  repetition_penalty: float32([1], []),
};

test.each(Object.entries(MODELS))("%s stays below a quarter of float16's range", async (model, checkpoint) => {
  await using folder = await Folder.make();
  const engine = folder.at("engine");
  await compileEngine(checkpoint, ref, engine);
  const { size } = JSON.parse(await readFile(join(engine, "engine.json"), "utf8")) as { size: number };
  // Black, white, and noise between them: the ends of what pixels can be.
  const pixels = new Uint8Array(3 * size * size * 3).map((_, i) =>
    i % 3 === 0 ? 0 : i % 3 === 1 ? 255 : (i * 31) % 256,
  );
  const vision = await run(engine, "vision", { pixels: new Tensor("uint8", pixels, [3, size, size, 3]) });
  const states = vision.outputs.states!;
  const texts = await Texts.load(engine);
  const words = ["how many dogs are there?", "a dog", "a dog to the left of a red car"];
  const { ids, mask } = padded(words.map((text) => texts.encode(text, { maxTokens: 32 }).ids));
  const found = [vision.largest];
  if (model === "demo-caption") {
    found.push((await run(engine, "greedy", { states, ...DECODING })).largest);
  } else if (model === "blip2-opt") {
    const prompts = { ...DECODING, prompt: ids, prompt_mask: mask };
    found.push((await run(engine, "greedy", { states, ...prompts })).largest);
  } else if (model === "demo-vqa") {
    const question = await run(engine, "question", { states, ids, mask });
    const greedy = await run(engine, "greedy", { states: question.outputs.question!, mask, ...DECODING });
    found.push(question.largest, greedy.largest);
  } else {
    found.push(
      (await run(engine, "match", { states, ids, mask })).largest,
      (await run(engine, "text", { ids, mask })).largest,
    );
  }
  expect(Math.min(...found)).toBeGreaterThan(1);
  expect(Math.max(...found)).toBeLessThan(FLOAT16_MAX / 4);
});

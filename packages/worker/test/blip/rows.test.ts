import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { expect, test } from "vitest";
import { encodeModel, Graph, int } from "../../src/blip/onnx/graph.ts";
import { Folder } from "./checkpoints.ts";

/**
 * In 8 and 4 bits the least difference grows: an activation that lies between two steps falls on the other one. So a row must be
 * the same to the last bit whatever rows stand beside it, which is a property of ONNX Runtime's kernels and of the size of
 * the blocks (weights.ts); larger blocks than 64, in 4 bits than 32, don't have it. Sizes are BLIP-base's and OPT's.
 */
test.each([
  [8, 64, 64],
  [8, 768, 768],
  [8, 768, 2304],
  [8, 3072, 768],
  [8, 2560, 2560],
  [4, 64, 64],
  [4, 2560, 2560],
  [4, 2560, 7680],
  [4, 10_240, 2560],
])("MatMulNBits of %i bits, %i to %i: a row is the same however many there are", async (bits, inputs, outputs) => {
  const block = bits === 8 ? 64 : 32;
  await using folder = await Folder.make();
  // Constants, which the runtime packs for its kernels.
  const bytesOfBlocks = (inputs * outputs * bits) / 8;
  const scaleCount = (inputs * outputs) / block;
  const scaleValues = new Float32Array(scaleCount).map((_, i) => (i % 7) / 1_000);
  await writeFile(
    folder.at("weights.bin"),
    Buffer.concat([randomBytes(bytesOfBlocks), Buffer.from(scaleValues.buffer)]),
  );
  const graph = new Graph("rows", "float32");
  const x = graph.input("x", "float32", ["rows", inputs]);
  const constant = (name: string, type: "uint8" | "float32", shape: number[], offset: number, length: number) =>
    graph.external(name, type, shape, { file: "weights.bin", offset, length });
  const blocks = constant("blocks", "uint8", [outputs, inputs / block, (block * bits) / 8], 0, bytesOfBlocks);
  const scales = constant("scales", "float32", [scaleCount], bytesOfBlocks, 4 * scaleCount);
  const attributes = {
    K: int(inputs),
    N: int(outputs),
    bits: int(bits),
    block_size: int(block),
    accuracy_level: int(4),
  };
  graph.output(graph.named("y", graph.op("MatMulNBits", [x, blocks, scales], attributes)), "float32", [
    "rows",
    outputs,
  ]);
  await writeFile(folder.at("rows.onnx"), encodeModel(graph));
  const session = await InferenceSession.create(folder.at("rows.onnx"));
  const all = new Float32Array(33 * inputs).map((_, i) => Math.sin(i));
  const run = async (first: number, count: number) => {
    const rows = all.slice(first * inputs, (first + count) * inputs);
    const { y } = await session.run({ x: new Tensor("float32", rows, [count, inputs]) });
    return Buffer.from((y!.data as Float32Array).slice().buffer);
  };
  const bytes = 4 * outputs;
  const alone: Buffer[] = [];
  for (let i = 0; i < 33; i++) alone.push(await run(i, 1));
  for (const count of [2, 3, 4, 7, 8, 24, 33]) {
    const together = await run(0, count);
    for (let i = 0; i < count; i++) {
      expect(together.compare(alone[i]!, 0, bytes, i * bytes, (i + 1) * bytes), `row ${i} of ${count}`).toBe(0);
    }
  }
  await session.release();
});

/**
 * How close engines of other precisions come to float32's, on the sample images: node agreement-process.ts '<folders by
 * precision>' prints, for each precision, the cosine of the encoder's outputs (mean and least over all positions) and
 * the share of equal greedy tokens.
 */
import { readdir, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { taskSpecSchema } from "@capfleet/shared/contract";
import { loadEngine } from "@capfleet/worker/blip";
import type { Generated, Output } from "@capfleet/worker/engine";
import { decode } from "@capfleet/worker/pixels";
import { Tensor } from "onnxruntime-node";
import { Sessions } from "../../packages/worker/src/blip/sessions.ts";

export interface Agreement {
  meanCosine: number;
  leastCosine: number;
  equalTokens: number;
}

const IMAGES = fileURLToPath(new URL("../demo/images/", import.meta.url));
const COUNT = 8;
const SIZE = 384;
const settings = { threads: availableParallelism(), device: "cpu" };
const folders = JSON.parse(process.argv[2]!) as Record<string, string>;

const names = (await readdir(IMAGES)).sort().slice(0, COUNT);
const images: Uint8Array[] = [];
for (const name of names) {
  const file = await readFile(join(IMAGES, name));
  images.push(await decode(file, { width: SIZE, height: SIZE }, { maxPixels: 1e8, maxSeconds: 120 }));
}

const found = new Map<string, { states: Float32Array[]; width: number; captions: Generated[] }>();
for (const [precision, folder] of Object.entries(folders)) {
  const sessions = await Sessions.open(folder, settings);
  const states: Float32Array[] = [];
  let width = 0;
  for (const image of images) {
    const outputs = await sessions.run("vision", { pixels: new Tensor("uint8", image, [1, SIZE, SIZE, 3]) });
    states.push(Float32Array.from(outputs.states!.data as Float32Array));
    width = outputs.states!.dims.at(-1)!;
  }
  await sessions.release();
  const engine = await loadEngine(folder, settings);
  const task = taskSpecSchema.parse({ name: "caption", decoding: { minNewTokens: 20 } });
  const items = images.map((_, i) => ({ id: String(i), texts: [] }));
  const outputs = await engine.label(task, items, Buffer.concat(images));
  await engine.release();
  const captions = outputs.map((output) => (output as Extract<Output, { task: "caption" }>).captions[0]!);
  found.set(precision, { states, width, captions });
}

const exact = found.get("fp32")!;
const agreements: Record<string, Agreement> = {};
for (const [precision, { states, captions }] of found) {
  const cosines = states.flatMap((values, i) => rowCosines(values, exact.states[i]!, exact.width));
  const equal = captions.flatMap(({ ids }, i) => ids.map((id, at) => id === exact.captions[i]!.ids[at]));
  agreements[precision] = {
    meanCosine: cosines.reduce((sum, cosine) => sum + cosine, 0) / cosines.length,
    leastCosine: Math.min(...cosines),
    equalTokens: equal.filter(Boolean).length / equal.length,
  };
}
console.log(JSON.stringify(agreements));
process.exit(0);

function rowCosines(a: Float32Array, b: Float32Array, width: number): number[] {
  return Array.from({ length: a.length / width }, (_, row) => {
    let [product, lengthA, lengthB] = [0, 0, 0];
    for (let i = row * width; i < (row + 1) * width; i++) {
      product += a[i]! * b[i]!;
      lengthA += a[i]! ** 2;
      lengthB += b[i]! ** 2;
    }
    return product / Math.sqrt(lengthA * lengthB);
  });
}

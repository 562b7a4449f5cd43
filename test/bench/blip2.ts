/**
 * The engine with BLIP-2: the layers of ViT-g and OPT-2.7b with random weights, but fewer of them (10 of 39, 8 of 32),
 * so that fp32 and transformers fit beside each other; with `--full` all of them, in int8 and int4 only, on 45 GB of disk.
 *
 * New tokens a second are of a text of 21 tokens less one of 1: the image and the prompt come before.
 */
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Precision } from "@capfleet/shared/contract";
import type { Figure } from "./bench.ts";
import { BLIP2_OPT, BLIP2_REDUCED, type Blip2Geometry, blip2Checkpoint } from "./checkpoints/blip2.ts";
import { compileApart, measure, reference, say, visionOperations } from "./measure.ts";

const BATCHES = [1, 8];
const TOKENS = 20;

export async function blip2Figures({ full }: { full: boolean }): Promise<Figure[]> {
  const geometry = full ? BLIP2_OPT : BLIP2_REDUCED;
  const precisions: Precision[] = full ? ["int8", "int4"] : ["fp32", "fp16", "int8", "int4"];
  const folder = await mkdtemp(join(tmpdir(), "capfleet-bench-"));
  try {
    const figures = full ? [] : await reference("blip2.py", `${geometry.vision.layers}`, `${geometry.text.layers}`);
    const checkpoint = join(folder, "checkpoint");
    say(`making a checkpoint of ${geometry.vision.layers} and ${geometry.text.layers} layers …`);
    await blip2Checkpoint(checkpoint, geometry);
    figures.push({ name: "checkpoint", value: await megabytes(checkpoint), unit: "MB" });
    for (const precision of precisions) {
      const engine = join(folder, precision);
      figures.push(...(await compileApart(checkpoint, precision, engine)));
      figures.push({ name: `engine.${precision}`, value: await megabytes(engine), unit: "MB" });
      figures.push(...(await speeds(engine, precision, geometry)));
      await rm(engine, { recursive: true });
    }
    return figures;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function speeds(engine: string, precision: Precision, geometry: Blip2Geometry): Promise<Figure[]> {
  const figures: Figure[] = [];
  const request = { engine, beams: 1, texts: 0, rounds: 3 };
  const vision = await measure({ ...request, task: "vision", batch: 1, rounds: 5 });
  figures.push({ name: `capfleet.${precision}.encoder`, value: 1 / vision.seconds, unit: "img/s" });
  if (precision === "fp32") {
    const { seconds, operations } = await measure({ ...request, task: "matmul", batch: 1, rounds: 12 });
    const achieved = visionOperations(geometry.vision) / vision.seconds;
    figures.push(
      { name: "matmul.fp32", value: operations / seconds / 1e9, unit: "GFLOP/s" },
      { name: "capfleet.fp32.encoder.flops", value: achieved / 1e9, unit: "GFLOP/s (Q-Former's not counted)" },
      { name: "capfleet.fp32.encoder.share", value: (achieved * seconds) / operations, unit: "of a plain MatMul" },
    );
  }
  for (const batch of BATCHES) {
    const captions = (newTokens: number) => measure({ ...request, task: "caption", batch, newTokens });
    const one = await captions(1);
    const many = await captions(1 + TOKENS);
    const tokens = (batch * TOKENS) / (many.seconds - one.seconds);
    figures.push(
      { name: `capfleet.${precision}.tokens.batch${batch}`, value: tokens, unit: "new tokens/s" },
      {
        name: `capfleet.${precision}.captions.batch${batch}`,
        value: batch / many.seconds,
        unit: `img/s, ${1 + TOKENS} tokens`,
      },
      { name: `capfleet.${precision}.memory.batch${batch}`, value: many.residentMb, unit: "MB resident" },
      { name: `capfleet.${precision}.peak.batch${batch}`, value: many.peakMb, unit: "MB at most, while loading" },
      { name: `capfleet.${precision}.first.batch${batch}`, value: many.firstSeconds, unit: "s from disk to captions" },
    );
  }
  return figures;
}

async function megabytes(folder: string): Promise<number> {
  const sizes = await Promise.all((await readdir(folder)).map(async (name) => (await stat(join(folder, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0) / 1e6;
}

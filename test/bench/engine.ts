/**
 * The engine alone: BLIP-base's geometry with random weights, 384 × 384, batches of 8, 20 new tokens, on all cores; against
 * transformers on the same machine where CAPFLEET_REFERENCE_PYTHON names a Python that has torch and transformers.
 *
 * Each measurement is a process of its own, so that none pays for what another left in memory. The best of several
 * batches counts: what is slower was disturbed.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { BUNDLED_MODELS } from "@capfleet/shared/config";
import type { Precision } from "@capfleet/shared/contract";
import { engineRef } from "@capfleet/shared/models";
import { compileEngine } from "@capfleet/worker/blip";
import type { Agreement } from "./agreement-process.ts";
import type { Figure } from "./bench.ts";
import { type Architecture, BLIP_BASE, blipCheckpoint } from "./checkpoints/blip.ts";
import { compileApart, measure, reference, say, visionOperations } from "./measure.ts";

const run = promisify(execFile);
const BATCH = 8;
// fp16 and int8 are BLIP's; int4 is for large language models.
const PRECISIONS: Precision[] = ["fp32", "fp16", "int8"];

export async function engineFigures(): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), "capfleet-bench-"));
  try {
    const figures = await reference("blip.py");
    for (const part of [captions, agreement, severalTexts, memory, compiling]) figures.push(...(await part(folder)));
    return [...figures, ...ratios(figures)];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function captions(folder: string): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const precision of PRECISIONS) {
    const engine = await compiled(folder, "BlipForConditionalGeneration", precision);
    for (const [name, beams] of [
      ["greedy", 1],
      ["beam3", 3],
    ] as const) {
      const found = await measure({ engine, task: "caption", beams, texts: 0, batch: BATCH, rounds: 4 });
      figures.push({ name: `capfleet.${precision}.${name}`, value: BATCH / found.seconds, unit: "img/s" });
      if (beams > 1) continue;
      figures.push({
        name: `capfleet.${precision}.first`,
        value: found.firstSeconds,
        unit: "s from disk to first captions",
      });
      figures.push({ name: `capfleet.${precision}.memory`, value: found.residentMb, unit: "MB resident" });
    }
    if (precision === "fp16") continue;
    const vision = await measure({ engine, task: "vision", beams: 1, texts: 0, batch: BATCH, rounds: 4 });
    figures.push({ name: `capfleet.${precision}.encoder`, value: BATCH / vision.seconds, unit: "img/s" });
    if (precision !== "fp32") continue;
    const { seconds, operations } = await measure({ engine, task: "matmul", beams: 1, texts: 0, batch: 1, rounds: 12 });
    const plain = operations / seconds;
    const achieved = (visionOperations(BLIP_BASE.vision) * BATCH) / vision.seconds;
    figures.push({ name: "matmul.fp32", value: plain / 1e9, unit: "GFLOP/s" });
    figures.push({ name: "capfleet.fp32.encoder.flops", value: achieved / 1e9, unit: "GFLOP/s" });
    figures.push({ name: "capfleet.fp32.encoder.share", value: achieved / plain, unit: "of a plain MatMul" });
  }
  return figures;
}

async function severalTexts(folder: string): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const [architecture, task, counts] of [
    ["BlipForQuestionAnswering", "vqa", [1, 5]],
    ["BlipForImageTextRetrieval", "itm", [1, 10]],
  ] as const) {
    const engine = await compiled(folder, architecture, "int8");
    for (const texts of counts) {
      const { seconds } = await measure({ engine, task, beams: 1, texts, batch: BATCH, rounds: 3 });
      figures.push({ name: `capfleet.int8.${task}.${texts}`, value: BATCH / seconds, unit: "img/s" });
    }
  }
  return figures;
}

/** How close the other precisions come to float32. */
async function agreement(folder: string): Promise<Figure[]> {
  say("comparing precisions …");
  const engines: Record<string, string> = {};
  for (const precision of PRECISIONS) {
    engines[precision] = join(folder, `BlipForConditionalGeneration.${precision}`);
  }
  const { stdout } = await run(process.execPath, [
    join(import.meta.dirname, "agreement-process.ts"),
    JSON.stringify(engines),
  ]);
  return Object.entries(JSON.parse(stdout) as Record<string, Agreement>).flatMap(([precision, found]) => [
    {
      name: `agreement.${precision}.distance`,
      value: 1 - found.meanCosine,
      unit: "1 - cosine of encoder outputs, mean",
    },
    { name: `agreement.${precision}.distance.most`, value: 1 - found.leastCosine, unit: "the same, largest" },
    { name: `agreement.${precision}.tokens`, value: found.equalTokens, unit: "of greedy tokens equal" },
  ]);
}

/** A checkpoint of several GB: more layers than any public one has. */
async function compiling(folder: string): Promise<Figure[]> {
  const checkpoint = join(folder, "huge");
  const wide = { ...BLIP_BASE.vision, width: 1408, hidden: 6144, layers: 40, heads: 16 };
  say("making a checkpoint of several GB …");
  await blipCheckpoint(checkpoint, "BlipForConditionalGeneration", { ...BLIP_BASE, vision: wide });
  const { size } = await stat(join(checkpoint, "model.safetensors"));
  const figures: Figure[] = [{ name: "compile.checkpoint", value: size / 1e6, unit: "MB" }];
  for (const precision of PRECISIONS) {
    const out = join(folder, `huge.${precision}`);
    figures.push(...(await compileApart(checkpoint, precision, out)));
    await rm(out, { recursive: true });
  }
  return figures;
}

/** Over 10,000 batches of the demo model, after 1,000 of them. */
async function memory(folder: string): Promise<Figure[]> {
  const engine = join(folder, "demo");
  await compileEngine(join(BUNDLED_MODELS, "demo-caption"), engineRef("demo", "demo", "int8"), engine);
  const { grownMb } = await measure({ engine, task: "caption", beams: 1, texts: 0, batch: 1, rounds: 11_000 });
  return [{ name: "capfleet.demo.growth", value: grownMb, unit: "MB over 10,000 batches" }];
}

async function compiled(folder: string, architecture: Architecture, precision: Precision): Promise<string> {
  const checkpoint = join(folder, architecture);
  if (!existsSync(checkpoint)) {
    say(`making ${architecture} …`);
    await blipCheckpoint(checkpoint, architecture, BLIP_BASE);
  }
  const engine = join(folder, `${architecture}.${precision}`);
  await compileEngine(checkpoint, engineRef(architecture, "random", precision), engine);
  return engine;
}

/** What the figures are for: how much faster than transformers, and 8 bits than 32. */
function ratios(figures: readonly Figure[]): Figure[] {
  const named = (name: string) => figures.find((figure) => figure.name === name)?.value;
  const pairs = [
    ["capfleet.fp32.greedy", "transformers.fp32.greedy"],
    ["capfleet.fp32.beam3", "transformers.fp32.beam3"],
    ["capfleet.int8.greedy", "transformers.bf16.greedy"],
    ["capfleet.int8.beam3", "transformers.bf16.beam3"],
    ["capfleet.int8.greedy", "capfleet.fp32.greedy"],
    ["capfleet.int8.beam3", "capfleet.fp32.beam3"],
    ["capfleet.int8.vqa.1", "capfleet.int8.vqa.5"],
    ["capfleet.int8.itm.1", "capfleet.int8.itm.10"],
  ] as const;
  return pairs.flatMap(([fast, slow]) => {
    const [a, b] = [named(fast), named(slow)];
    return a && b ? [{ name: `${fast} / ${slow}`, value: a / b, unit: "times" }] : [];
  });
}

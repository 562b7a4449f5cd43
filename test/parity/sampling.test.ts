/**
 * What sampling draws against transformers' probabilities of the first token, after temperature, top-k and top-p. Seeds
 * are fixed, so a test that passes once always does.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type TaskSpec, taskSpecSchema } from "@capfleet/shared/contract";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readPixels } from "../../packages/worker/test/blip/checkpoints.ts";
import { type Case, CompiledEngine, casesOf, readLines, TOLERANCE } from "./golden.ts";

interface GoldenSample {
  id: string;
  task: Record<string, unknown>;
  /** By token id; ids that can't be drawn are absent. */
  probabilities: Record<string, number>;
}

type CaptionTask = Extract<TaskSpec, { name: "caption" }>;

const DRAWS = 4_000;
/** Records that are drawn for at a time. */
const BATCH = 50;
const LEAST_EXPECTED = 5;
/**
 * The standard normal distribution is above it with probability 0.005 / 17: of a right sampler, with other seeds, one of
 * the 17 tests would fail by chance in one of 200 runs.
 */
const QUANTILE = 3.437;
/** Captions per record: each draw has a noise of its own, whether of another record or of the same. */
const CANDIDATES: Record<string, number> = {
  "demo-caption": 16,
  "pixels-beyond-the-last-patch": 4,
  "blip2-opt-new-layout": 4,
};

const cases = casesOf("caption").filter(({ folder }) => existsSync(join(folder, "sampling.jsonl")));

describe.each(cases)("$name draws as transformers would", (one) => {
  let engine: CompiledEngine;
  beforeAll(async () => {
    engine = await CompiledEngine.of(one);
  });
  afterAll(() => engine[Symbol.asyncDispose]());

  const golden = readLines<GoldenSample>(join(one.folder, "sampling.jsonl"));
  test.each(golden.map((row) => ({ ...row, name: JSON.stringify(row.task) })))("$id $name", async (row) => {
    const { id, probabilities } = row;
    const task = taskSpecSchema.parse({ ...row.task, captions: CANDIDATES[one.name]! }) as CaptionTask;
    const drawn = await draw(engine, one, id, task);
    expect(drawn.length).toBe(DRAWS);
    const counts = new Map<string, number>();
    for (const { token, score } of drawn) {
      expect(probabilities).toHaveProperty(token);
      counts.set(token, (counts.get(token) ?? 0) + 1);
      if (isRaw(task)) expect(Math.abs(score - Math.log(probabilities[token]!))).toBeLessThan(TOLERANCE);
    }
    const { statistic, freedom } = chiSquare(counts, probabilities);
    expect(freedom).toBeGreaterThan(0);
    expect(statistic).toBeLessThanOrEqual(criticalValue(freedom));
  });
});

/** Whether the probabilities are the model's own: then a score is the logarithm of one. */
function isRaw({ decoding: { repetitionPenalty, sampling } }: CaptionTask): boolean {
  const { temperature, topK, topP } = sampling!;
  return repetitionPenalty === 1 && temperature === 1 && topK === 0 && topP === 1;
}

async function draw(engine: CompiledEngine, one: Case, image: string, task: CaptionTask) {
  const pixels = await readPixels(one.checkpoint, Array<string>(BATCH).fill(image));
  const drawn: { token: string; score: number }[] = [];
  for (let record = 0; drawn.length < DRAWS; record += BATCH) {
    const items = Array.from({ length: BATCH }, (_, i) => ({ id: `record ${record + i}`, texts: [] }));
    for (const output of await engine.engine.label(task, items, pixels)) {
      if (output.task !== "caption") throw new Error(`a ${output.task} came of a caption task`);
      drawn.push(...output.captions.map(({ ids, score }) => ({ token: String(ids[0]), score })));
    }
  }
  return drawn;
}

/** Pearson's statistic. Tokens that are rarely expected are counted together, by the test's rule of thumb. */
function chiSquare(counts: ReadonlyMap<string, number>, probabilities: Record<string, number>) {
  const cells = [{ seen: 0, expected: 0 }];
  const rarestFirst = Object.entries(probabilities).sort(([, a], [, b]) => a - b);
  for (const [token, probability] of rarestFirst) {
    if (cells.at(-1)!.expected >= LEAST_EXPECTED) cells.push({ seen: 0, expected: 0 });
    const cell = cells.at(-1)!;
    cell.seen += counts.get(token) ?? 0;
    cell.expected += probability * DRAWS;
  }
  const statistic = cells.reduce((sum, { seen, expected }) => sum + (seen - expected) ** 2 / expected, 0);
  return { statistic, freedom: cells.length - 1 };
}

/** What the statistic is above with the probability that QUANTILE stands for, by Wilson and Hilferty's approximation. */
function criticalValue(freedom: number): number {
  const spread = 2 / (9 * freedom);
  return freedom * (1 - spread + QUANTILE * Math.sqrt(spread)) ** 3;
}

/**
 * A result depends on its own record alone: whatever stands in a batch with it, in whatever order, a record gets the same
 * tokens and, within rounding, the same scores as alone. Records and batches are drawn at random, from a fixed seed.
 */
import { PRECISIONS, type Precision, TASKS, type Task, taskSpecSchema, textsOf } from "@capfleet/shared/contract";
import type { Item, Output } from "@capfleet/worker/engine";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readPixels } from "../../packages/worker/test/blip/checkpoints.ts";
import { CompiledEngine, casesOf, difference, TOLERANCE } from "./golden.ts";

const RECORDS = 8;
const BATCHES = [2, 5, 8, 32];

const QUESTIONS = { column: "question" };
const TEXTS = { column: "text" };
/** By the tasks that a checkpoint's golden rows are of: what is asked of it. */
const ASKED: { [name in Task]: object[] } = {
  caption: [
    { name: "caption", decoding: {} },
    { name: "caption", decoding: { beams: 3, repetitionPenalty: 1.2 }, prompt: "a picture of" },
    { name: "caption", decoding: { sampling: { seed: 7, temperature: 5, topP: 0.9 } }, captions: 2 },
  ],
  vqa: [
    { name: "vqa", decoding: {}, questions: QUESTIONS },
    { name: "vqa", decoding: { beams: 3, minNewTokens: 2 }, questions: QUESTIONS },
    { name: "vqa", decoding: {}, questions: QUESTIONS, answers: ["yes", "no", "two cups and a car", "a star", "3"] },
  ],
  itm: [{ name: "itm", texts: TEXTS }],
  itc: [{ name: "itc", texts: TEXTS }],
  embed: [{ name: "embed", texts: TEXTS }, { name: "embed" }],
};
/** The most texts that a record has. */
const MOST_TEXTS = 4;

const MODELS = [
  ...["demo-caption", "demo-vqa", "demo-itm", "default-heads-float16", "vqa-float16-sharded"],
  ...["blip2-opt-float16-sharded", "blip2-itm-float16-sharded"],
];
/** int4 is for language models. */
const FITS: { [precision in Precision]: (name: string) => boolean } = {
  fp32: () => true,
  fp16: () => false,
  int8: () => true,
  int4: (name) => name.startsWith("blip2-opt"),
};
const cases = casesOf(...TASKS).filter(({ name }) => MODELS.includes(name));
const combinations = cases.flatMap((one) =>
  PRECISIONS.filter((precision) => FITS[precision](one.name)).map((precision) => ({ one, precision, name: one.name })),
);

describe.each(combinations)("$name in $precision", ({ one, precision }) => {
  const tasks = [...new Set(one.rows.map(({ task }) => task.name))].flatMap((name) => ASKED[name]);
  let engine: CompiledEngine;
  beforeAll(async () => {
    engine = await CompiledEngine.of(one, precision);
  });
  afterAll(() => engine[Symbol.asyncDispose]());

  test.each(tasks.map((task) => [JSON.stringify(task), task]))("%s", async (_, given) => {
    const task = taskSpecSchema.parse(given);
    const random = generator(20_260_101);
    const all = [...new Set(one.rows.flatMap((row) => row.texts))];
    const records = Array.from({ length: RECORDS }, (_, i) => {
      const count = textsOf(task) ? 1 + below(random, MOST_TEXTS) : 0;
      const some = Array.from({ length: count }, () => all[below(random, all.length)]!);
      return { id: `record ${i}`, image: one.rows[below(random, one.rows.length)]!.id, texts: some };
    });
    const label = async (some: typeof records): Promise<Output[]> => {
      const items: Item[] = some.map(({ id, texts }) => ({ id, texts }));
      return engine.engine.label(
        task,
        items,
        await readPixels(
          one.checkpoint,
          some.map(({ image }) => image),
        ),
      );
    };
    const alone: Output[] = [];
    for (const record of records) alone.push(...(await label([record])));

    for (const size of BATCHES) {
      const chosen = Array.from({ length: size }, () => below(random, RECORDS));
      const outputs = await label(chosen.map((i) => records[i]!));
      expect(outputs.length).toBe(size);
      for (const [place, output] of outputs.entries()) {
        const [here, there] = [parts(output), parts(alone[chosen[place]!]!)];
        expect(here.said).toEqual(there.said);
        expect(difference(here.numbers, there.numbers)).toBeLessThan(TOLERANCE);
      }
    }
  });
});

/** What must be the same, and numbers, which are rounded differently in other batches. */
function parts(output: Output): { said: unknown; numbers: number[] } {
  if ("scores" in output) return { said: output.cut, numbers: output.scores };
  if ("embeddings" in output) return { said: output.cut, numbers: output.embeddings.flat() };
  const texts = "captions" in output ? output.captions : output.answers;
  return {
    said: [texts.map(({ ids, text }) => ({ ids, text })), "cut" in output && output.cut],
    numbers: texts.flatMap(({ score, rank }) => [score, rank]),
  };
}

/** Numbers from 0 to 1, always the same ones: mulberry32, by Tommy Ettinger. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const below = (random: () => number, n: number): number => Math.floor(random() * n);

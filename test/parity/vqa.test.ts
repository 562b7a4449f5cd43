/** Answers to questions against transformers', on the same pixels. See README.md for where they come from. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BATCH, byTask, CompiledEngine, casesOf, expectSameTexts } from "./golden.ts";

describe.each(casesOf("vqa"))("$name answers as transformers does", (one) => {
  let engine: CompiledEngine;
  beforeAll(async () => {
    engine = await CompiledEngine.of(one);
  });
  afterAll(() => engine[Symbol.asyncDispose]());

  test.each(byTask(one.rows))("%s", async (_, rows) => {
    const outputs = await engine.label(rows, BATCH);
    for (const [i, { answers, margins, cut }] of rows.entries()) {
      const output = outputs[i]!;
      if (output.task !== "vqa") throw new Error(`a ${output.task} came of a vqa task`);
      expect(output.cut).toEqual(cut);
      expect(output.answers.length).toBe(answers!.length);
      for (const [j, answer] of answers!.entries()) expectSameTexts([output.answers[j]!], [answer], margins![j]!);
    }
  });
});

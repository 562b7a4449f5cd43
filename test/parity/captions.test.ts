/** Captions against transformers', on the same pixels. See README.md for where the answers come from. */
import { afterAll, beforeAll, describe, test } from "vitest";
import { BATCH, byTask, CompiledEngine, casesOf, expectSameTexts } from "./golden.ts";

describe.each(casesOf("caption"))("$name captions as transformers does", (one) => {
  let engine: CompiledEngine;
  beforeAll(async () => {
    engine = await CompiledEngine.of(one);
  });
  afterAll(() => engine[Symbol.asyncDispose]());

  test.each(byTask(one.rows))("%s", async (_, rows) => {
    const outputs = await engine.label(rows, BATCH);
    for (const [i, { captions, margins }] of rows.entries()) {
      const output = outputs[i]!;
      if (output.task !== "caption") throw new Error(`a ${output.task} came of a caption task`);
      expectSameTexts(output.captions, captions!, margins![0]!);
    }
  });
});

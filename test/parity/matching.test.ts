/** itm, itc and embeddings against transformers', on the same pixels. See README.md for where they come from. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BATCH, byTask, CompiledEngine, casesOf, difference, TOLERANCE } from "./golden.ts";

describe.each(casesOf("itm", "itc", "embed"))("$name matches as transformers does", (one) => {
  let engine: CompiledEngine;
  beforeAll(async () => {
    engine = await CompiledEngine.of(one);
  });
  afterAll(() => engine[Symbol.asyncDispose]());

  test.each(byTask(one.rows))("%s", async (_, rows) => {
    const outputs = await engine.label(rows, BATCH);
    for (const [i, { task, scores, embeddings, cut }] of rows.entries()) {
      const output = outputs[i]!;
      expect(output).toMatchObject({ task: task.name, cut });
      if ("scores" in output) expect(difference(output.scores, scores!)).toBeLessThan(TOLERANCE);
      else if ("embeddings" in output)
        expect(difference(output.embeddings.flat(), embeddings!.flat())).toBeLessThan(TOLERANCE);
      else throw new Error(`a ${output.task} came of a ${task.name} task`);
    }
  });
});

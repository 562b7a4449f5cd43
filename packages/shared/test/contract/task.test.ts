import { describe, expect, test } from "vitest";
import { MAX_TEXT_CHARACTERS, taskSpecSchema } from "../../src/contract/index.ts";

const vqa = { name: "vqa", decoding: {}, questions: { column: "q" } };

describe("a template of questions", () => {
  test("is the model's own where a spec has none, as those of earlier versions", () => {
    expect(taskSpecSchema.parse(vqa)).toMatchObject({ template: null, answers: null });
  });

  test.each(["{question}", "Question: {question} Answer:", "{question} Really: {question}"])(
    "may be %j",
    (template) => {
      expect(taskSpecSchema.parse({ ...vqa, template })).toMatchObject({ template });
    },
  );

  test.each(["", "Answer:", "{Question}", "{ question }", `{question}${"x".repeat(MAX_TEXT_CHARACTERS)}`])(
    "can't be %.20j",
    (template) => {
      expect(taskSpecSchema.safeParse({ ...vqa, template }).success).toBe(false);
    },
  );

  test("is for questions only", () => {
    const parsed = taskSpecSchema.parse({ name: "caption", decoding: {}, template: "{question}" });
    expect(parsed).not.toHaveProperty("template");
  });
});

import { decodingSchema, resultRowSchema, type TaskSpec } from "@capfleet/shared/contract";
import { describe, expect, test } from "vitest";
import type { Generated, Output } from "../../src/engine/engine.ts";
import { fieldsOf } from "../../src/pipeline/fields.ts";

const decoding = decodingSchema.parse({});
const made = (text: string, score: number): Generated => ({ ids: [1], text, score, rank: score });
const caption = (captions: number): TaskSpec => ({ name: "caption", decoding, captions, prompt: null });
const column = { column: "c" };
const vqa: TaskSpec = { name: "vqa", decoding, questions: column, template: null, answers: null };
const itm: TaskSpec = { name: "itm", texts: column };
const itc: TaskSpec = { name: "itc", texts: column };
const embed: TaskSpec = { name: "embed", texts: column };
const images: TaskSpec = { name: "embed", texts: null };

const [best, second] = [made("a dog", -0.1), made("a cat", -0.5)];
const CASES: [string, TaskSpec, string[], Output, object][] = [
  ["a caption", caption(1), [], { task: "caption", captions: [best] }, { caption: "a dog", score: -0.1 }],
  [
    "captions",
    caption(2),
    [],
    { task: "caption", captions: [best, second] },
    {
      caption: "a dog",
      score: -0.1,
      captions: [
        { text: "a dog", score: -0.1 },
        { text: "a cat", score: -0.5 },
      ],
    },
  ],
  ["an answer", vqa, ["q?"], { task: "vqa", answers: [made("yes", -1)], cut: [] }, { answer: "yes", score: -1 }],
  [
    "answers, one of them to a question that was cut",
    vqa,
    ["q?", "r?"],
    { task: "vqa", answers: [made("yes", -1), made("no", -2)], cut: [1] },
    {
      answers: [
        { question: "q?", answer: "yes", score: -1 },
        { question: "r?", answer: "no", score: -2 },
      ],
      warnings: ["question 2 of 2 is too long for the model: its end was cut off"],
    },
  ],
  ["a probability", itm, ["t"], { task: "itm", scores: [0.75], cut: [] }, { itm: 0.75 }],
  ["probabilities", itm, ["t", "u"], { task: "itm", scores: [0.75, 0], cut: [] }, { scores: [0.75, 0] }],
  [
    "a similarity to a text that was cut",
    itc,
    ["t"],
    { task: "itc", scores: [-0.5], cut: [0] },
    { itc: -0.5, warnings: ["the text is too long for the model: its end was cut off"] },
  ],
  ["an image's vector", images, [], { task: "embed", embeddings: [[0.6, -0.8]], cut: [] }, { embedding: [0.6, -0.8] }],
  [
    "an image's vectors",
    images,
    [],
    {
      task: "embed",
      embeddings: [
        [0.6, -0.8],
        [0, 1],
        [1, 0],
      ],
      cut: [],
    },
    {
      embeddings: [
        [0.6, -0.8],
        [0, 1],
        [1, 0],
      ],
    },
  ],
  ["a text's vector", embed, ["t"], { task: "embed", embeddings: [[1, 0]], cut: [] }, { embedding: [1, 0] }],
  [
    "texts' vectors",
    embed,
    ["t", "u"],
    { task: "embed", embeddings: [[1], [-1]], cut: [0, 1] },
    {
      embeddings: [[1], [-1]],
      warnings: [1, 2].map((n) => `text ${n} of 2 is too long for the model: its end was cut off`),
    },
  ],
];

describe("an output becomes the row's fields", () => {
  test.each(CASES)("%s", (_, task, texts, output, fields) => {
    expect(fieldsOf(task, texts, output)).toEqual(fields);
    // Nothing in it that the contract does not know.
    const row = { id: "1", image: null, ...fields };
    expect(resultRowSchema.strict().parse(row)).toEqual(row);
  });
});

test("a vector is written with the digits of a float32, and loses none of them", () => {
  const floats = Float32Array.from({ length: 5_000 }, (_, n) => Math.sin(n) * 10 ** -(n % 9));
  const { embedding } = fieldsOf(images, [], { task: "embed", embeddings: [[...floats]], cut: [] });
  expect(Float32Array.from(embedding!)).toEqual(floats);
  expect(JSON.stringify(embedding).length).toBeLessThan(0.7 * JSON.stringify([...floats]).length);
});

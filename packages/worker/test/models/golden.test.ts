import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TaskSpec } from "@capfleet/shared/contract";
import { afterEach, beforeEach, expect, test } from "vitest";
import { DEMO } from "../../../../test/support/processes.ts";
import type { Engine, Item, Output } from "../../src/engine/engine.ts";
import { readGolden } from "../../src/models/golden.ts";
import { compare, verdict } from "../../src/models/verify.ts";

let folder: string;
let file: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-golden-"));
  file = join(folder, "golden.jsonl");
});
afterEach(() => rm(folder, { recursive: true }));

const IMAGE = "images/scene-000.webp";
async function read(...rows: object[]) {
  await writeFile(file, rows.map((row) => JSON.stringify({ image: IMAGE, ...row })).join("\n"));
  return readGolden(file, DEMO);
}

/** Says what it was asked. */
class Parrot implements Engine {
  readonly info = {
    ref: { model: "parrot", digest: "", checkpoint: "", precision: "fp32" as const },
    tasks: ["caption", "vqa"] as const,
    image: { width: 8, height: 8 },
    batch: 1,
  };

  async label(task: TaskSpec, [item]: readonly Item[]): Promise<Output[]> {
    const made = (text: string) => [{ ids: [text.length], text, score: -1, rank: -1 }];
    if (task.name === "caption") return [{ task: "caption", captions: made(`caption ${task.prompt}`) }];
    const { template } = task as Extract<TaskSpec, { name: "vqa" }>;
    return [{ task: "vqa", answers: made(`${template} ${item!.texts.join()}`), cut: [] }];
  }

  async release(): Promise<void> {}
}

test("captions and answers of one model, in one file, are compared task by task", async () => {
  const template = "Question: {question} Answer:";
  const expected = await read(
    { question: "how many?", answer: "null how many?", score: -1.25 },
    { caption: "caption null" },
    { question: "how many?", template, answer: `${template} how many?`, ids: [38] },
    { caption: "a dog", prompt: "a" },
    { question: "is it?", template, answer: "yes", score: -9 },
  );
  const found = await compare(new Parrot(), expected);
  expect(found).toEqual([
    {
      task: "vqa",
      ...{ rows: 3, texts: 3, same: 2, scores: 1, largest: 0.25, mean: 0.25 },
      differences: [`${file}:5: "${template} is it?" instead of "yes"`],
    },
    {
      task: "caption",
      ...{ rows: 2, texts: 2, same: 1, scores: 0, largest: 0, mean: 0 },
      differences: [`${file}:4: "caption a" instead of "a dog"`],
    },
  ]);
  expect(verdict(found, { score: 0.25, texts: 0.5 })).toBeNull();
  expect(verdict(found, { score: 0.2, texts: 0.5 })).toBe("vqa: a score differs by 0.250");
  expect(verdict(found, { score: 0.25, texts: 0.4 })).toBe("caption: 1 of 2 texts differ");
});

test.each([
  { question: "how many?", template: "Answer:", answer: "2" },
  { question: "how many?", template: null, answer: "2" },
  { caption: "a dog", template: "{question}" },
  { text: "a dog", itm: 0.5, template: "{question}" },
])("the row %j is refused", async (row) => {
  await expect(read({ caption: "a" }, row)).rejects.toMatchObject({
    code: "INVALID_OPTION",
    message: expect.stringMatching(/^.*golden\.jsonl:2: .*\{question\}/),
  });
});

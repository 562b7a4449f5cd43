/** vqa: an answer to each question about an image, made freely or chosen from a closed list. */
import type { TaskSpec } from "@capfleet/shared/contract";
import type { Tensor } from "onnxruntime-node";
import type { Generated, Item, Output } from "../../engine/engine.ts";
import { padded, take } from "../tensors.ts";
import { generate, type Subject } from "./generate.ts";
import { type Model, pieces, tokenize } from "./model.ts";
import { closedList, rank } from "./rank.ts";

type Vqa = Extract<TaskSpec, { name: "vqa" }>;

/** Tokens of questions that go through the graphs at a time. */
const QUESTION_TOKENS = 256;

export async function vqa(model: Model, task: Vqa, items: readonly Item[], states: Tensor): Promise<Output[]> {
  const questions = items.map(({ texts }) => tokenize(model, texts));
  const answers = questions.map(({ ids }) => Array<Generated>(ids.length));
  const closed = task.answers && closedList(model, task.answers);
  const tokens = questions.map(({ ids }) => ids);
  for (const { images, texts, places } of pieces(tokens, QUESTION_TOKENS)) {
    const { ids, mask } = padded(texts);
    const { question } = await model.sessions.run("question", { states: take(states, images), ids, mask });
    const keys = places.map(({ item, text }) => `${items[item]!.id}\n${text}`);
    const subject = { states: question!, mask, keys };
    const made = closed ? await rank(model, subject, closed) : await answer(model, task, subject);
    for (const [i, { item, text }] of places.entries()) answers[item]![text] = made[i]!;
  }
  return answers.map((answers, i) => ({ task: "vqa", answers, cut: questions[i]!.cut }));
}

async function answer(model: Model, { decoding }: Vqa, subject: Subject): Promise<Generated[]> {
  const all = await generate(model, subject, { decoding, count: 1, prompt: [model.file.text.start] });
  return all.map(([best]) => best!);
}

/**
 * vqa: an answer to each question about an image, made freely or chosen from a closed list. BLIP has an encoder for
 * questions, and answers of its states; to BLIP-2 a question is a prompt.
 */
import { CapfleetError, type TaskSpec } from "@capfleet/shared/contract";
import type { Tensor } from "onnxruntime-node";
import type { Generated, Item, Output } from "../../engine/engine.ts";
import { padded, take } from "../tensors.ts";
import { generate, type Subject } from "./generate.ts";
import { generationOf, type Model, type Piece, pieces, tokenize } from "./model.ts";
import { closedList, rank } from "./rank.ts";

type Vqa = Extract<TaskSpec, { name: "vqa" }>;

/** Tokens of questions that go through the graphs at a time. */
const QUESTION_TOKENS = 256;

export async function vqa(model: Model, task: Vqa, items: readonly Item[], states: Tensor): Promise<Output[]> {
  const generation = generationOf(model);
  const template = task.template ?? generation.template;
  const encoded = generation.image === "beside";
  const closed = task.answers && closedList(model, task.answers);
  const longest = closed ? Math.max(...closed.map(({ ids }) => ids.length)) : task.decoding.maxNewTokens;
  const questions = items.map(({ texts }) =>
    encoded
      ? tokenize(
          model,
          texts.map((text) => fill(template, text)),
        )
      : prompts(model, template, texts, longest),
  );
  const answers = questions.map(({ ids }) => Array<Generated>(ids.length));
  const tokens = questions.map(({ ids }) => ids);
  for (const piece of pieces(tokens, QUESTION_TOKENS)) {
    const keys = piece.places.map(({ item, text }) => `${items[item]!.id}\n${text}`);
    const subject = encoded ? await encode(model, piece, states, keys) : prompted(piece, states, keys);
    const made = closed ? await rank(model, subject, closed) : await answer(model, task, subject);
    for (const [i, { item, text }] of piece.places.entries()) answers[item]![text] = made[i]!;
  }
  return answers.map((answers, i) => ({ task: "vqa", answers, cut: questions[i]!.cut }));
}

const fill = (template: string, question: string): string => template.replaceAll("{question}", () => question);

/** What the encoder of questions makes of them and their images. */
async function encode(model: Model, { images, texts }: Piece, states: Tensor, keys: string[]): Promise<Subject> {
  const { ids, mask } = padded(texts);
  const { question } = await model.sessions.run("question", { states: take(states, images), ids, mask });
  const { start } = generationOf(model);
  return { states: question!, mask, keys, prompts: texts.map(() => [start]) };
}

/** Each question's image, and the question as what the answer goes on from. */
function prompted({ places, texts }: Piece, states: Tensor, keys: string[]): Subject {
  const images = places.map(({ item }) => item);
  return { states: take(states, images), keys, prompts: texts };
}

/**
 * Questions in their template, as token ids, that leave place for answers of `longest` tokens. A question that is too long
 * loses its end, and not the template's, which is what makes the model answer.
 */
function prompts(model: Model, template: string, questions: readonly string[], longest: number) {
  const { file, texts } = model;
  const { start } = generationOf(model);
  // The last token is made, but never looked at.
  const room = file.positions + 1 - longest;
  const promptOf = (question: string) => [start, ...texts.tokens(fill(template, question))];
  const cut: number[] = [];
  const ids = questions.map((question, i) => {
    let prompt = promptOf(question);
    const own = prompt.length > room ? texts.tokens(question) : [];
    while (prompt.length > room && own.length > 0) {
      own.length = Math.max(0, own.length - (prompt.length - room));
      prompt = promptOf(own.length === 0 ? "" : texts.decode(own));
      if (cut.at(-1) !== i) cut.push(i);
    }
    if (prompt.length <= room) return prompt;
    const message = `the template leaves no place for a question in ${file.ref.model}'s ${file.positions} tokens`;
    throw new CapfleetError("INVALID_OPTION", message);
  });
  return { ids, cut };
}

async function answer(model: Model, { decoding }: Vqa, subject: Subject): Promise<Generated[]> {
  const all = await generate(model, subject, { decoding, count: 1, withPrompt: false });
  return all.map(([best]) => best!);
}

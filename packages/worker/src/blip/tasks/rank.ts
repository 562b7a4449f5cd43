/**
 * Choosing from a closed list of answers by likelihood, as BLIP does it for VQA (Li et al. 2022; `rank_answer` in its
 * code): the answers whose first token is likeliest are compared in full, by the sum of their tokens' log-probabilities,
 * the end token included.
 */
import { CapfleetError } from "@capfleet/shared/contract";
import type { Generated } from "../../engine/engine.ts";
import { float32, int32, int64, rows, take } from "../tensors.ts";
import { promptFeeds, type Subject } from "./generate.ts";
import { finite, generationOf, type Model } from "./model.ts";

/** Answers that are compared in full: BLIP's `k_test`. */
const COMPARED = 128;
/** Tokens of answers, for all questions together, that go through the graph at a time. */
const TOKENS = 1024;

export interface Answer {
  text: string;
  /** Token ids, the end token included. */
  ids: number[];
}

/** The list that a model was asked to choose from last: a job asks for the same one with every batch. */
const lastLists = new WeakMap<Model, { key: string; list: Answer[] }>();

/** Throws INVALID_OPTION: an answer is longer than the model can make. */
export function closedList(model: Model, answers: readonly string[]): Answer[] {
  const key = JSON.stringify(answers);
  const last = lastLists.get(model);
  if (last?.key === key) return last.list;
  const list = answers.map((text) => answerOf(model, text));
  lastLists.set(model, { key, list });
  return list;
}

function answerOf(model: Model, text: string): Answer {
  const { file, texts } = model;
  const { end, image } = generationOf(model);
  // After an image in the same sequence, the answer is a further word of the prompt.
  const ids = [...texts.tokens(image === "before" ? ` ${text}` : text), end];
  if (ids.length < file.positions) return { text, ids };
  const start = text.slice(0, 40);
  throw new CapfleetError("INVALID_OPTION", `the answer "${start}…" is longer than ${file.ref.model}'s texts`);
}

/** The likeliest answer to each question; its `rank` is the sum. */
export async function rank(model: Model, questions: Subject, answers: readonly Answer[]): Promise<Generated[]> {
  if (answers.length <= COMPARED) return best(model, questions, answers);
  const { first } = await compare(model, questions, [{ text: "", ids: [generationOf(model).end] }]);
  const chosen: Generated[] = [];
  for (const [i, likelihood] of rows(first!).entries()) {
    const order = [...answers.keys()].sort(
      (a, b) => likelihood[answers[b]!.ids[0]!]! - likelihood[answers[a]!.ids[0]!]!,
    );
    // In the list's order, so that of equals the same one wins as in a short list.
    const shortlist = order.slice(0, COMPARED).sort((a, b) => a - b);
    chosen.push(
      ...(await best(
        model,
        one(questions, i),
        shortlist.map((at) => answers[at]!),
      )),
    );
  }
  return chosen;
}

async function best(model: Model, questions: Subject, answers: readonly Answer[]): Promise<Generated[]> {
  const totals = questions.keys.map((): number[] => []);
  const longest = Math.max(...answers.map(({ ids }) => ids.length));
  const atATime = Math.max(1, Math.floor(TOKENS / (longest * questions.keys.length)));
  for (let from = 0; from < answers.length; from += atATime) {
    const compared = await compare(model, questions, answers.slice(from, from + atATime));
    for (const [i, sums] of rows(compared.totals!).entries()) totals[i]!.push(...sums);
  }
  return totals.map((sums) => {
    const at = sums.reduce((best, sum, i) => (sum > sums[best]! ? i : best), 0);
    const { text, ids } = answers[at]!;
    const total = finite(sums[at]!, model);
    return { ids, text, score: total / ids.length, rank: total };
  });
}

function compare(model: Model, subject: Subject, answers: readonly Answer[]) {
  const { start } = generationOf(model);
  const length = Math.max(...answers.map(({ ids }) => ids.length));
  const shape = [answers.length, length];
  const filled = (values: (ids: number[]) => number[]) =>
    answers.flatMap(({ ids }) => [...values(ids), ...Array<number>(length - ids.length).fill(0)]);
  const { prompt, ...seen } = promptFeeds(model, subject);
  return model.sessions.run("rank", {
    ...seen,
    // The start token in each answer is all the prompt there is where questions have an encoder.
    ...(generationOf(model).image === "before" && { prompt }),
    answers: int64(
      filled((ids) => [start, ...ids.slice(0, -1)]),
      shape,
    ),
    targets: int64(
      filled((ids) => ids),
      shape,
    ),
    weights: float32(
      filled((ids) => ids.map(() => 1)),
      shape,
    ),
  });
}

function one({ states, mask, keys, prompts }: Subject, i: number): Subject {
  const subject = { states: take(states, [i]), keys: [keys[i]!], prompts: [prompts[i]!] };
  if (!mask) return subject;
  const tokens = mask.dims[1]!;
  const own = (mask.data as Int32Array).subarray(i * tokens, (i + 1) * tokens);
  return { ...subject, mask: int32([...own], [1, tokens]) };
}

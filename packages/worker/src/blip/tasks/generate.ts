/** Making texts of states: greedily, by sampling or with beams. */
import { createHash } from "node:crypto";
import { CapfleetError, type Decoding } from "@capfleet/shared/contract";
import type { Tensor } from "onnxruntime-node";
import type { Generated } from "../../engine/engine.ts";
import type { Tensors } from "../sessions.ts";
import { float32, int32, int64, rows, take } from "../tensors.ts";
import { finite, generationOf, type Model } from "./model.ts";

/** What texts are made of. */
export interface Subject {
  /** [groups, positions, width]: images or questions. */
  states: Tensor;
  /** int32 [groups, positions], where states are padded. */
  mask?: Tensor;
  /** One per group: with the seed it decides what sampling draws. */
  keys: readonly string[];
  /** Token ids that each group's texts begin with, the start token first. */
  prompts: readonly (readonly number[])[];
}

export interface Wanted {
  decoding: Decoding;
  /** Texts per group. */
  count: number;
  /** Whether a text begins with its prompt, or is only what comes after it. */
  withPrompt: boolean;
}

/**
 * Texts that are made at a time, all beams and candidates counted, where the image is in their sequence: each then has
 * the image's keys and values, 40 MB in OPT-2.7b.
 */
const ROWS = 24;

/** `count` texts for each group. Throws INVALID_OPTION where texts could be longer than the model's, ENGINE_FAILED. */
export async function generate(model: Model, subject: Subject, wanted: Wanted): Promise<Generated[][]> {
  checkLength(model, subject, wanted);
  const { beams, sampling } = wanted.decoding;
  const make = sampling ? sample : beams > 1 ? beam : greedy;
  const groups = subject.keys.length;
  const width = sampling ? wanted.count : beams;
  const size = generationOf(model).image === "beside" ? groups : Math.max(1, Math.floor(ROWS / width));
  const texts: Generated[][] = [];
  for (let from = 0; from < groups; from += size) {
    texts.push(...(await make(model, part(subject, from, Math.min(from + size, groups)), wanted)));
  }
  return texts;
}

/** Groups [from, to). */
function part(subject: Subject, from: number, to: number): Subject {
  if (from === 0 && to === subject.keys.length) return subject;
  const { states, keys, prompts } = subject;
  const some = Array.from({ length: to - from }, (_, i) => from + i);
  return { states: take(states, some), keys: keys.slice(from, to), prompts: prompts.slice(from, to) };
}

async function greedy(model: Model, subject: Subject, wanted: Wanted): Promise<Generated[][]> {
  const { ids, totals } = await model.sessions.run("greedy", feeds(model, subject, wanted));
  return grouped(generated(model, subject, wanted, rows(ids!), totals!), 1);
}

async function sample(model: Model, subject: Subject, wanted: Wanted): Promise<Generated[][]> {
  const { count, decoding } = wanted;
  const { seed, temperature, topK, topP } = decoding.sampling!;
  const { vocabulary } = generationOf(model);
  const steps = decoding.maxNewTokens;
  const candidates = subject.keys.flatMap((key) => Array.from({ length: count }, (_, i) => `${seed}\n${key}\n${i}`));
  const { ids, totals } = await model.sessions.run("sample", {
    ...feeds(model, subject, wanted),
    noise: float32(
      candidates.flatMap((key) => noise(key, steps)),
      [subject.keys.length, count, steps],
    ),
    temperature: float32([temperature], []),
    top_k: int64([topK === 0 ? vocabulary : Math.min(topK, vocabulary)], []),
    top_p: float32([topP], []),
  });
  return grouped(generated(model, subject, wanted, rows(ids!), totals!), count);
}

async function beam(model: Model, subject: Subject, wanted: Wanted): Promise<Generated[][]> {
  const { beams, lengthPenalty } = wanted.decoding;
  const { ids, totals, ranks } = await model.sessions.run("beam", {
    ...feeds(model, subject, wanted),
    beams: int64([beams], []),
    length_penalty: float32([lengthPenalty], []),
  });
  const length = ids!.dims[2]!;
  const hypotheses = rows(ids!).flatMap((row) =>
    Array.from({ length: beams }, (_, i) => row.slice(i * length, (i + 1) * length)),
  );
  const all = generated(model, subject, wanted, hypotheses, totals!).map((text, i) => ({
    ...text,
    rank: (ranks!.data as Float32Array)[i]!,
  }));
  return grouped(all, beams).map((texts) => texts.slice(0, wanted.count));
}

const feeds = (model: Model, subject: Subject, { decoding }: Wanted) => ({
  ...promptFeeds(model, subject),
  max_new_tokens: int64([decoding.maxNewTokens], []),
  min_new_tokens: int64([decoding.minNewTokens], []),
  repetition_penalty: float32([decoding.repetitionPenalty], []),
});

/** What texts go on from. Where prompts are padded, it is with a token that they have: padding has no penalty. */
export function promptFeeds(model: Model, { states, mask, prompts }: Subject): Tensors {
  const { image, start } = generationOf(model);
  const length = Math.max(...prompts.map((prompt) => prompt.length));
  const filled = (values: (prompt: readonly number[]) => readonly number[], padding: number) =>
    prompts.flatMap((prompt) => [...Array<number>(length - prompt.length).fill(padding), ...values(prompt)]);
  const shape = [prompts.length, length];
  const ids = filled((prompt) => prompt, start);
  const ones = filled((prompt) => prompt.map(() => 1), 0);
  return {
    states,
    ...(mask && { mask }),
    prompt: int64(ids, shape),
    ...(image === "before" && { prompt_mask: int32(ones, shape) }),
  };
}

/** Rows of new token ids, the same number for each group, as texts. */
function generated(
  model: Model,
  { prompts }: Subject,
  { withPrompt }: Wanted,
  all: readonly number[][],
  totals: Tensor,
): Generated[] {
  const sums = totals.data as Float32Array;
  const { end } = generationOf(model);
  const each = all.length / prompts.length;
  return all.map((made, i) => {
    const endAt = made.indexOf(end);
    const ids = endAt < 0 ? made : made.slice(0, endAt + 1);
    const score = finite(sums[i]! / ids.length, model);
    const shown = withPrompt ? [...prompts[Math.floor(i / each)]!, ...ids] : ids;
    return { ids, text: model.texts.decode(shown), score, rank: score };
  });
}

const grouped = <T>(all: readonly T[], size: number): T[][] =>
  Array.from({ length: all.length / size }, (_, i) => all.slice(i * size, (i + 1) * size));

function checkLength({ file }: Model, { prompts }: Subject, { decoding }: Wanted): void {
  const prompt = Math.max(...prompts.map(({ length }) => length));
  // The last token is made, but never looked at.
  const longest = prompt - 1 + decoding.maxNewTokens;
  if (longest <= file.positions) return;
  const most = file.positions - prompt + 1;
  const what =
    prompt > 1 ? `${decoding.maxNewTokens} new tokens after the prompt` : `${decoding.maxNewTokens} new tokens`;
  throw new CapfleetError("INVALID_OPTION", `${what}: ${file.ref.model} can make ${Math.max(0, most)} at most`);
}

/** Numbers from 0 to just below 1, uniform; the same for the same key. A hash of key and counter is the generator. */
function noise(key: string, count: number): number[] {
  const numbers: number[] = [];
  for (let block = 0; numbers.length < count; block++) {
    const digest = createHash("sha256").update(`${key}\n${block}`).digest();
    // 23 bits, so that a product with it is below the other factor in float32 too.
    for (let at = 0; at < digest.length; at += 4) numbers.push((digest.readUInt32LE(at) >>> 9) / 2 ** 23);
  }
  return numbers.slice(0, count);
}

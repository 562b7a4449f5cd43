/** Making texts of states: greedily, by sampling or with beams. */
import { createHash } from "node:crypto";
import { CapfleetError, type Decoding } from "@capfleet/shared/contract";
import type { Tensor } from "onnxruntime-node";
import type { Generated } from "../../engine/engine.ts";
import { float32, int64, rows } from "../tensors.ts";
import { finite, type Model } from "./model.ts";

/** What texts are made of. */
export interface Subject {
  /** [groups, positions, width]: images or questions. */
  states: Tensor;
  /** int32 [groups, positions], where states are padded. */
  mask?: Tensor;
  /** One per group: with the seed it decides what sampling draws. */
  keys: readonly string[];
}

export interface Wanted {
  decoding: Decoding;
  /** Texts per group. */
  count: number;
  /** Token ids that every text begins with, the start token first. */
  prompt: readonly number[];
}

/** `count` texts for each group. Throws INVALID_OPTION where texts could be longer than the model's, ENGINE_FAILED. */
export async function generate(model: Model, subject: Subject, wanted: Wanted): Promise<Generated[][]> {
  checkLength(model, wanted);
  const { beams, sampling } = wanted.decoding;
  if (sampling) return sample(model, subject, wanted);
  return beams > 1 ? beam(model, subject, wanted) : greedy(model, subject, wanted);
}

async function greedy(model: Model, subject: Subject, wanted: Wanted): Promise<Generated[][]> {
  const { ids, totals } = await model.sessions.run("greedy", feeds(subject, wanted));
  return group(generated(model, wanted, rows(ids!), totals!), 1);
}

async function sample(model: Model, subject: Subject, wanted: Wanted): Promise<Generated[][]> {
  const { count, decoding } = wanted;
  const { seed, temperature, topK, topP } = decoding.sampling!;
  const { vocabulary } = model.file.text;
  const steps = decoding.maxNewTokens;
  const candidates = subject.keys.flatMap((key) => Array.from({ length: count }, (_, i) => `${seed}\n${key}\n${i}`));
  const { ids, totals } = await model.sessions.run("sample", {
    ...feeds(subject, wanted),
    noise: float32(
      candidates.flatMap((key) => noise(key, steps)),
      [subject.keys.length, count, steps],
    ),
    temperature: float32([temperature], []),
    top_k: int64([topK === 0 ? vocabulary : Math.min(topK, vocabulary)], []),
    top_p: float32([topP], []),
  });
  return group(generated(model, wanted, rows(ids!), totals!), count);
}

async function beam(model: Model, subject: Subject, wanted: Wanted): Promise<Generated[][]> {
  const { beams, lengthPenalty } = wanted.decoding;
  const { ids, totals, ranks } = await model.sessions.run("beam", {
    ...feeds(subject, wanted),
    beams: int64([beams], []),
    length_penalty: float32([lengthPenalty], []),
  });
  const length = ids!.dims[2]!;
  const hypotheses = rows(ids!).flatMap((row) =>
    Array.from({ length: beams }, (_, i) => row.slice(i * length, (i + 1) * length)),
  );
  const all = generated(model, wanted, hypotheses, totals!).map((text, i) => ({
    ...text,
    rank: (ranks!.data as Float32Array)[i]!,
  }));
  return group(all, beams).map((texts) => texts.slice(0, wanted.count));
}

const feeds = ({ states, mask }: Subject, { prompt, decoding }: Wanted) => ({
  states,
  ...(mask && { mask }),
  prompt: int64(prompt, [prompt.length]),
  max_new_tokens: int64([decoding.maxNewTokens], []),
  min_new_tokens: int64([decoding.minNewTokens], []),
  repetition_penalty: float32([decoding.repetitionPenalty], []),
});

/** Rows of token ids, prompt included, as texts. */
function generated(model: Model, { prompt }: Wanted, all: readonly number[][], totals: Tensor): Generated[] {
  const sums = totals.data as Float32Array;
  return all.map((row, i) => {
    const made = row.slice(prompt.length);
    const end = made.indexOf(model.file.text.end);
    const ids = end < 0 ? made : made.slice(0, end + 1);
    const score = finite(sums[i]! / ids.length, model);
    return { ids, text: model.texts.decode([...prompt, ...ids]), score, rank: score };
  });
}

const group = <T>(all: readonly T[], size: number): T[][] =>
  Array.from({ length: all.length / size }, (_, i) => all.slice(i * size, (i + 1) * size));

function checkLength({ file }: Model, { prompt, decoding }: Wanted): void {
  // The last token is made, but never looked at.
  const longest = prompt.length - 1 + decoding.maxNewTokens;
  if (longest <= file.text.positions) return;
  const most = file.text.positions - prompt.length + 1;
  const what =
    prompt.length > 1 ? `${decoding.maxNewTokens} new tokens after the prompt` : `${decoding.maxNewTokens} new tokens`;
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

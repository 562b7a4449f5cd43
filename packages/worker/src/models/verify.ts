/** An engine's answers beside a golden file's, one image at a time. */
import { readFile } from "node:fs/promises";
import { CapfleetError, type Precision, type Task } from "@capfleet/shared/contract";
import type { Engine, Output } from "../engine/engine.ts";
import { DEFAULT_MAX_PIXELS, decode } from "../pixels/index.ts";
import type { Expectation } from "./golden.ts";

/**
 * What a precision is held to, unless the command says otherwise: the largest difference of a score (a probability, a
 * cosine, a mean log-probability), and the share of texts that may be others. With fp32 what differs is the pixels, by
 * a grey level here and there between one JPEG decoder and another. What 4 bits do to a language model depends on how
 * sure it is of its words: their tolerance is wide, and for a model of yours better set by hand.
 */
export const TOLERANCES: Record<Precision, { score: number; texts: number }> = {
  fp32: { score: 2e-3, texts: 0 },
  fp16: { score: 0.05, texts: 0.01 },
  int8: { score: 0.05, texts: 0.01 },
  int4: { score: 0.25, texts: 0.1 },
};

export interface Comparison {
  task: Task;
  rows: number;
  /** Texts that are compared, and those that are the same. */
  texts: number;
  same: number;
  /** Over the scores that are compared; 0 where there are none. */
  scores: number;
  largest: number;
  mean: number;
  /** What differs, a line each. */
  differences: string[];
}

/** By task. Throws IMAGE_NOT_FOUND and the decoder's errors, TASK_UNSUPPORTED, ENGINE_FAILED. */
export async function compare(engine: Engine, expected: readonly Expectation[]): Promise<Comparison[]> {
  const found = new Map<Task, Comparison>();
  for (const row of expected) {
    const pixels = await decode(await readImage(row.image), engine.info.image, {
      maxPixels: DEFAULT_MAX_PIXELS,
      maxSeconds: 120,
    });
    const [output] = await engine.label(row.task, [{ id: row.row, texts: row.texts }], pixels);
    const task = row.task.name;
    const sums = found.get(task) ?? {
      task,
      rows: 0,
      texts: 0,
      same: 0,
      scores: 0,
      largest: 0,
      mean: 0,
      differences: [],
    };
    found.set(task, sums);
    add(sums, row, answerOf(output!));
  }
  return [...found.values()];
}

/** What is outside the tolerance, in words; null where nothing is. */
export function verdict(found: readonly Comparison[], tolerance: { score: number; texts: number }): string | null {
  const wrong = found.flatMap(({ task, texts, same, largest }) => {
    const different = texts - same;
    return [
      ...(different > texts * tolerance.texts ? [`${task}: ${different} of ${texts} texts differ`] : []),
      ...(largest > tolerance.score ? [`${task}: a score differs by ${largest.toPrecision(3)}`] : []),
    ];
  });
  return wrong.length === 0 ? null : wrong.join("; ");
}

interface Answer {
  text?: string;
  ids?: readonly number[];
  score: number;
}

function answerOf(output: Output): Answer {
  if (output.task === "caption") return output.captions[0]!;
  if (output.task === "vqa") return output.answers[0]!;
  if (output.task === "embed") throw new CapfleetError("TASK_UNSUPPORTED", "embeddings are not compared");
  return { score: output.scores[0]! };
}

function add(sums: Comparison, { row, text, ids, score }: Expectation, answer: Answer): void {
  sums.rows += 1;
  if (text !== undefined) {
    sums.texts += 1;
    const isSame = ids ? ids.join() === answer.ids?.join() : text === answer.text;
    if (isSame) sums.same += 1;
    else sums.differences.push(`${row}: ${JSON.stringify(answer.text)} instead of ${JSON.stringify(text)}`);
  }
  // The scores of two different texts say nothing of each other.
  if (score === undefined || (text !== undefined && text !== answer.text)) return;
  const difference = Math.abs(score - answer.score);
  sums.mean = (sums.mean * sums.scores + difference) / (sums.scores + 1);
  sums.scores += 1;
  sums.largest = Math.max(sums.largest, difference);
}

async function readImage(path: string): Promise<Buffer> {
  return readFile(path).catch((cause: NodeJS.ErrnoException) => {
    throw new CapfleetError("IMAGE_NOT_FOUND", `${path} can't be read (${cause.code})`, { cause });
  });
}

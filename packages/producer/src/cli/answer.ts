/** The answer to an interactive request, as people read it. */
import type { InferRow } from "@capfleet/shared/queues";

/** Numbers of a vector that are shown. */
const SHOWN = 6;

/** `texts`: the record's, in the order of the row's scores. */
export function answerText(row: InferRow, texts: readonly string[]): string {
  const { caption, captions, answer, answers, itm, itc, scores, embedding, embeddings, pairs } = row;
  if (caption !== undefined) {
    const all = captions ?? [{ text: caption, score: row.score! }];
    return table(
      ["score", "caption"],
      all.map(({ text, score }) => [decimals(score), text]),
    );
  }
  if (answer !== undefined || answers) {
    const all = answers ?? [{ question: texts[0]!, answer: answer!, score: row.score! }];
    return table(
      ["score", "answer", "question"],
      all.map((one) => [decimals(one.score), one.answer, one.question]),
    );
  }
  if (pairs) {
    const lines = pairs.map(({ itm, kept, origin, text }) => [decimals(itm), kept ? "kept" : "dropped", origin, text]);
    return pairs.length === 0 ? "no texts" : table(["match", "", "origin", "text"], lines);
  }
  const only = itm ?? itc;
  const matches = scores ?? (only === undefined ? null : [only]);
  if (matches) {
    const best = matches.map((score, i) => ({ score, text: texts[i]! })).sort((a, b) => b.score - a.score);
    return table(
      ["score", "text"],
      best.map(({ score, text }) => [decimals(score), text]),
    );
  }
  return (embeddings ?? [embedding!]).map(vectorText).join("\n");
}

function vectorText(vector: readonly number[]): string {
  const shown = vector.slice(0, SHOWN).map(decimals).join(" ");
  return `${vector.length} numbers (all of them with --json): ${shown} …`;
}

function table(heads: string[], lines: string[][]): string {
  const rows = [heads, ...lines];
  const widths = heads.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const decimals = (value: number) => value.toFixed(4);

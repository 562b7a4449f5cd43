/** What the engine says of a record, as the fields of its row. */
import type { ResultRow, TaskSpec } from "@capfleet/shared/contract";
import type { Generated, Output } from "../engine/engine.ts";

/** `texts`: the record's questions or texts, in the order of the output's answers, scores or vectors. */
export function fieldsOf(task: TaskSpec, texts: readonly string[], output: Output): Partial<ResultRow> {
  switch (output.task) {
    case "caption":
      return captionFields(output.captions, task.name === "caption" && task.captions > 1);
    case "vqa":
      return { ...answerFields(texts, output.answers), ...warnings("question", texts, output.cut) };
    case "itm":
    case "itc": {
      const { task: name, scores, cut } = output;
      const fields = texts.length === 1 ? { [name]: scores[0]! } : { scores };
      return { ...fields, ...warnings("text", texts, cut) };
    }
    case "embed": {
      const vectors = output.embeddings.map((vector) => vector.map(asFloat32));
      const fields = vectors.length > 1 ? { embeddings: vectors } : { embedding: vectors[0]! };
      return { ...fields, ...warnings("text", texts, output.cut) };
    }
  }
}

function captionFields(captions: readonly Generated[], several: boolean): Partial<ResultRow> {
  const { text, score } = captions[0]!;
  const all = several && { captions: captions.map(({ text, score }) => ({ text, score })) };
  return { caption: text, score, ...all };
}

function answerFields(questions: readonly string[], answers: readonly Generated[]): Partial<ResultRow> {
  const [only] = answers;
  if (questions.length === 1) return { answer: only!.text, score: only!.score };
  return { answers: answers.map(({ text, score }, i) => ({ question: questions[i]!, answer: text, score })) };
}

function warnings(what: "question" | "text", texts: readonly string[], cut: readonly number[]): Partial<ResultRow> {
  if (cut.length === 0) return {};
  const name = (i: number) => (texts.length === 1 ? `the ${what}` : `${what} ${i + 1} of ${texts.length}`);
  return { warnings: cut.map((i) => `${name(i)} is too long for the model: its end was cut off`) };
}

/** Nine digits say all that is in a float32, in half the characters that the same number takes as a float64. */
const asFloat32 = (value: number) => Number(value.toPrecision(9));

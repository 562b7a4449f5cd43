/** One row: its picture, and what was said about it. */
import { useState } from "preact/hooks";
import { Foreign, Meter } from "../parts/basics.tsx";
import { Dialog } from "../parts/dialog.tsx";
import { Thumbnail } from "../parts/thumbnail.tsx";
import type { Answer, Job, Row } from "../types.ts";

export interface Shown {
  row: Row;
  position: string;
  /** What was asked of the picture, where something was. */
  texts: string[] | null;
}

export function RowCard({ job, shown }: { job: Job; shown: Shown }) {
  const [isOpen, setOpen] = useState(false);
  const { row, position, texts } = shown;
  return (
    <li>
      <article class={row.error ? "card row failed" : "card row"}>
        <button type="button" class="row-open" aria-label={`Row ${row.id}, all of it`} onClick={() => setOpen(true)}>
          {row.image !== null && <Thumbnail job={job.id} position={position} size={320} />}
        </button>
        <div class="row-body">
          <Said answer={row} texts={texts} most={4} />
          <p class="row-id">
            <Foreign mono>{row.id}</Foreign>
          </p>
        </div>
      </article>
      {isOpen && (
        <Dialog title={row.id} wide onClose={() => setOpen(false)}>
          {row.image !== null && <Thumbnail job={job.id} position={position} size={1_024} />}
          <Said answer={row} texts={texts} most={1_000} />
          <p class="muted">
            <Foreign mono>{row.image ?? ""}</Foreign>
            {row.member && (
              <>
                {" in it: "}
                <Foreign mono>{row.member}</Foreign>
              </>
            )}
          </p>
          <details>
            <summary>The row as it is stored</summary>
            <pre>
              <bdi>{JSON.stringify(row, null, 2)}</bdi>
            </pre>
          </details>
        </Dialog>
      )}
    </li>
  );
}

interface SaidProps {
  answer: Answer;
  texts: readonly string[] | null;
  /** More texts than that are only counted. */
  most: number;
}

/** What a model says about a picture, whatever it was asked. */
export function Said({ answer, texts, most }: SaidProps) {
  const { error, pairs, embedding, embeddings, warnings } = answer;
  if (error)
    return (
      <p>
        <span class="chip bad">{error.code}</span> <Foreign>{error.message}</Foreign>
      </p>
    );
  const lines = linesOf(answer, texts);
  return (
    <>
      <ul class="said">
        {lines.slice(0, most).map((line, i) => (
          <li key={i} class={i === 0 && !pairs ? "best" : undefined}>
            {line.asked && (
              <span class="asked">
                <Foreign>{line.asked}</Foreign>
              </span>
            )}
            <span class={line.isDropped ? "text dropped" : "text"}>
              <Foreign>{line.text}</Foreign>
              {line.mark && <span class="chip">{line.mark}</span>}
            </span>
            <span class="score" title={line.title}>
              <Meter part={line.part} tone={line.isDropped ? "bad" : ""} />
              {line.score}
            </span>
          </li>
        ))}
      </ul>
      {lines.length > most && <p class="muted">and {lines.length - most} more</p>}
      {(embedding || embeddings) && (
        <p>
          {embedding ? `A vector of ${embedding.length}` : `${embeddings!.length} vectors of ${embeddings![0]!.length}`}
        </p>
      )}
      {warnings?.map((warning) => (
        <p key={warning} class="muted">
          <Foreign>{warning}</Foreign>
        </p>
      ))}
    </>
  );
}

interface Line {
  asked?: string | undefined;
  text: string;
  score: string;
  /** From 0 to 1. */
  part: number;
  title: string;
  mark?: string;
  isDropped?: boolean;
}

function linesOf(
  { caption, captions, score, answer, answers, itm, itc, scores, pairs }: Answer,
  texts: readonly string[] | null,
) {
  const logged = (value: number) => ({
    score: Math.exp(value).toFixed(3),
    part: Math.exp(value),
    title: `e to the power of its score, ${value.toFixed(4)}, the mean log-probability of its tokens`,
  });
  const matched = (value: number) => ({ score: value.toFixed(3), part: value, title: "probability to match" });
  const similar = (value: number) => ({ score: value.toFixed(3), part: (value + 1) / 2, title: "cosine similarity" });
  const lines: Line[] = [];
  if (captions) lines.push(...captions.map((one) => ({ text: one.text, ...logged(one.score) })));
  else if (caption !== undefined) lines.push({ text: caption, ...logged(score!) });
  if (answers) lines.push(...answers.map((one) => ({ asked: one.question, text: one.answer, ...logged(one.score) })));
  else if (answer !== undefined) lines.push({ asked: texts?.[0], text: answer, ...logged(score!) });
  if (itm !== undefined) lines.push({ text: texts?.[0] ?? "its text", ...matched(itm) });
  if (itc !== undefined) lines.push({ text: texts?.[0] ?? "its text", ...similar(itc) });
  // A similarity may be below 0; of probabilities none is.
  const of = scores?.some((value) => value < 0) ? similar : matched;
  const many = (scores ?? []).map((value, i) => ({ value, text: texts?.[i] ?? `text ${i + 1}` }));
  lines.push(...many.sort((a, b) => b.value - a.value).map(({ value, text }) => ({ text, ...of(value) })));
  for (const { text, origin, itm: value, kept } of pairs ?? [])
    lines.push({ text, mark: origin === "web" ? "dataset" : "made", isDropped: !kept, ...matched(value) });
  return lines;
}

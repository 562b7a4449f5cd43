/** Which rows somebody looks for. */
import { type ResultRow, scoresOf } from "@capfleet/shared/contract";

export interface RowFilter {
  /** Rows that failed with it. */
  code: string | null;
  /** What their id, image or any of their texts has in it, in upper or lower case. */
  search: string | null;
  /** Rows with a score (see `scoresOf`) of at least `from` and below `to`; a `to` of 1 or more is one without an end. */
  score: { from: number; to: number } | null;
}

/** Null where all rows pass. */
export function rowFilter({ code, search, score }: RowFilter): ((row: ResultRow) => boolean) | null {
  if (code === null && search === null && score === null) return null;
  const wanted = search?.toLowerCase() ?? "";
  const isIn = (value: number) => value >= score!.from && (value < score!.to || score!.to >= 1);
  return (row) =>
    (code === null || row.error?.code === code) &&
    (score === null || scoresOf(row).some(isIn)) &&
    (search === null || textsIn(row).some((text) => text.toLowerCase().includes(wanted)));
}

function textsIn(row: ResultRow): string[] {
  const { id, image, member, caption, captions = [], answer, answers = [], pairs = [], warnings = [], error } = row;
  const single = [id, image, member, caption, answer, error?.code, error?.message].filter((text) => text != null);
  const listed = [...captions, ...pairs].map(({ text }) => text);
  return [...single, ...listed, ...answers.flatMap((one) => [one.question, one.answer]), ...warnings];
}

/** What stands of a labelled row in a tar, beside its image. */
import type { InputRecord, ResultRow } from "../../contract/record.ts";
import { type JobTaskSpec, textsOf } from "../../contract/task.ts";
import { cleans } from "./columns.ts";

/** A result row, the record that it answers, and what a tar calls it. */
export interface KeyedRow {
  /** Digits; unlike any other row's. */
  key: string;
  record: InputRecord;
  row: ResultRow;
}

export interface SampleFiles {
  key: string;
  /** Null: the task makes no text of an image, and was given none or several. */
  text: string | null;
  json: Record<string, unknown>;
}

/** Shard and row: 6 digits and 4, as img2dataset has it. Sorted as the rows are. */
export const rowKey = (shard: number, row: number): string => `${digits(shard, 6)}${digits(row, 4)}`;
const digits = (n: number, length: number) => String(n).padStart(length, "0");

/** One sample, or in jobs that clean one for each text that stays; none where none does. */
export function samplesOf(task: JobTaskSpec, { key, record, row }: KeyedRow): SampleFiles[] {
  // `data` says where rows are in the job's output, which a dataset has left.
  const { data: _, ...own } = row;
  const json = { ...row.kept, ...own };
  if (!cleans(task)) return [{ key, text: textOf(task, record, row), json }];
  const kept = (row.pairs ?? []).filter((pair) => pair.kept);
  return kept.map(({ text, origin, itm }, i) => {
    return { key: `${key}_${digits(i, 3)}`, text, json: { ...json, text, origin, itm } };
  });
}

function textOf(task: JobTaskSpec, record: InputRecord, row: ResultRow): string | null {
  if (task.name === "caption") return row.caption ?? null;
  if (task.name === "vqa") return row.answer ?? row.answers?.map(({ answer }) => answer).join("\n") ?? null;
  const source = textsOf(task);
  const texts = record.texts ?? (source && "given" in source ? source.given : []);
  return texts.length === 1 ? texts[0]! : null;
}

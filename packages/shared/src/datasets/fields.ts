/** What a job takes from a row's fields, be the row a line, a table's row or a tar's sample: texts, and what is kept. */
import type * as z from "zod";
import type { ErrorCode } from "../contract/errors.ts";
import type { InputRecord, RowError } from "../contract/record.ts";
import { type JobTaskSpec, MAX_TEXTS, needsImage, needsText, textsOf } from "../contract/task.ts";

export type Json = z.infer<ReturnType<typeof z.json>>;
/** Only its own properties count: a column may be called as something that every object has. */
export type Fields = Record<string, Json>;

/** What a job takes from a row. */
export interface Wanted {
  image: boolean;
  /** The field that holds the record's texts; null where it needs none. */
  column: string | null;
  /** Whether a record may lack it. */
  optional: boolean;
  /** Fields that go along. */
  keep: readonly string[];
}

export function wantedOf(task: JobTaskSpec, keep: readonly string[]): Wanted {
  const source = textsOf(task);
  return {
    image: needsImage(task),
    column: source && "column" in source ? source.column : null,
    optional: !needsText(task),
    keep,
  };
}

export const fieldOf = (fields: Fields, name: string): Json | undefined =>
  Object.hasOwn(fields, name) ? fields[name] : undefined;

/** The record with what is kept and its texts, or what is wrong with them. */
export function withFields(record: InputRecord, fields: Fields, { column, optional, keep }: Wanted): InputRecord {
  const kept = keep.filter((name) => Object.hasOwn(fields, name));
  if (kept.length > 0) record.kept = Object.fromEntries(kept.map((name) => [name, fields[name]!]));
  if (column === null) return record;
  const texts = readTexts(fieldOf(fields, column), column);
  if (Array.isArray(texts)) return { ...record, texts };
  if (optional && texts.code === "TEXT_MISSING") return { ...record, texts: [] };
  return { ...record, error: texts };
}

/** A text or a list of texts, as a list; otherwise what is wrong with it. */
function readTexts(value: Json | undefined, column: string): string[] | RowError {
  if (value === undefined || value === null) return rowError("TEXT_MISSING", `no \`${column}\``);
  const texts: unknown[] = Array.isArray(value) ? value : [value];
  if (texts.length === 0) return rowError("TEXT_MISSING", `\`${column}\` is an empty list`);
  if (texts.length > MAX_TEXTS) {
    return rowError("TEXT_INVALID", `\`${column}\` holds ${texts.length} texts; ${MAX_TEXTS} at most`);
  }
  const wrong = texts.findIndex((text) => typeof text !== "string" || text.trim() === "");
  if (wrong < 0) return texts as string[];
  const which = Array.isArray(value) ? `text ${wrong + 1} of \`${column}\`` : `\`${column}\``;
  if (typeof texts[wrong] !== "string") return rowError("TEXT_INVALID", `${which} is not text`);
  return Array.isArray(value)
    ? rowError("TEXT_INVALID", `${which} is empty`)
    : rowError("TEXT_MISSING", `${which} is empty`);
}

export const rowError = (code: ErrorCode, message: string): RowError => ({ code, message, retryable: false });

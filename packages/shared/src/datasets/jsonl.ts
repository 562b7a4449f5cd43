/** JSONL: one JSON object a line. */

import type { Cursor } from "../contract/record.ts";
import type { Fields } from "./fields.ts";
import type { ManifestFile, Row, WantedOfRow } from "./row.ts";
import { cursorAfter, readLines, type TextLine, TOO_LONG } from "./text-file.ts";

export async function* readJsonl(
  file: ManifestFile,
  { columns }: WantedOfRow,
  cursor: Cursor | null,
): AsyncGenerator<Row[]> {
  for await (const lines of readLines(file, cursor?.source === "manifest" ? cursor : null)) {
    const rows: Row[] = [];
    for (const line of lines) {
      if (line.text !== null && line.text.trim() === "") continue;
      rows.push({ place: `line ${line.number}`, ...parseLine(line, columns.id), cursor: cursorAfter(file, line) });
    }
    if (rows.length > 0) yield rows;
  }
}

function parseLine({ text }: TextLine, id: string): Pick<Row, "fields" | "exactId"> {
  if (text === null) return { fields: TOO_LONG };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { fields: "not valid JSON" };
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return { fields: "not a JSON object" };
  const fields = value as Fields;
  const isInexact = typeof fields[id] === "number" && !Number.isSafeInteger(fields[id]);
  return isInexact ? { fields, exactId: numberAsWritten(text, id) } : { fields };
}

/** The digits of a number in an object's field: those over 2^53 are not all in the number that JSON.parse makes of them. */
function numberAsWritten(text: string, name: string): string {
  const written = new Map<unknown, string>();
  const object = JSON.parse(text, function (this: unknown, key, value, context?: { source: string }) {
    if (key === name && typeof value === "number") written.set(this, context!.source);
    return value;
  });
  return written.get(object)!;
}

/** A JSONL manifest: one JSON object a line, with an image, if it likes an id, what the task's column holds, and more. */

import type * as z from "zod";
import { CapfleetError, type ErrorCode } from "../contract/errors.ts";
import type { Input } from "../contract/job.ts";
import type { InputRecord, RowError } from "../contract/record.ts";
import { type JobTaskSpec, MAX_TEXTS, needsImage, needsText, textsOf } from "../contract/task.ts";
import { resolveUri, type Store } from "../storage/index.ts";
import type { Dataset, Entry } from "./dataset.ts";
import { splitLines } from "./lines.ts";

const MAX_LINE_BYTES = 1024 * 1024;
/** A broken line this early means that the whole file is probably not what the user meant. */
const STRICT_LINES = 1_000;

/** What a job takes from a line. */
interface Wanted {
  columns: Input["columns"];
  keep: readonly string[];
  image: boolean;
  /** The field that holds the record's texts; null where it needs none. */
  column: string | null;
  /** Whether a record may lack it. */
  optional: boolean;
}

/** `store` and `key` say where the manifest is; relative images are relative to it. */
export function manifestDataset(store: Store, key: string, input: ManifestInput, task: JobTaskSpec): Dataset {
  return {
    async *entries(cursor) {
      for await (const chunk of numbered(store, key, wantedOf(input, task), cursor)) yield chunk.entries;
    },
  };
}

/** Throws MANIFEST_INVALID, naming line and field, where one of the first 1,000 lines is not what the task needs. */
export async function checkManifest(store: Store, key: string, input: ManifestInput, task: JobTaskSpec): Promise<void> {
  const absent = new Set(input.keep);
  const found = () => {
    const [name] = absent;
    if (name === undefined) return;
    const message = `${store.uriOf(key)}: none of the first lines has \`${name}\`, which is to be kept`;
    throw new CapfleetError("MANIFEST_INVALID", message);
  };
  for await (const { entries, lines } of numbered(store, key, wantedOf(input, task), null)) {
    for (const [i, { record }] of entries.entries()) {
      const line = lines[i]!;
      if (line > STRICT_LINES) return found();
      if (record.error) {
        throw new CapfleetError("MANIFEST_INVALID", `${store.uriOf(key)} line ${line}: ${record.error.message}`);
      }
      for (const name of Object.keys(record.kept ?? {})) absent.delete(name);
    }
  }
  found();
}

/** Of an input that is a manifest. */
type ManifestInput = Pick<Input, "columns" | "keep">;

function wantedOf({ columns, keep }: ManifestInput, task: JobTaskSpec): Wanted {
  const source = textsOf(task);
  return {
    columns,
    keep,
    image: needsImage(task),
    column: source && "column" in source ? source.column : null,
    optional: !needsText(task),
  };
}

async function* numbered(store: Store, key: string, wanted: Wanted, cursor: Parameters<Dataset["entries"]>[0]) {
  const from = cursor?.source === "manifest" ? cursor : null;
  const uri = store.uriOf(key);
  const options = from ? { range: { start: from.offset }, ifMatch: from.etag } : {};
  const { body, etag } = await store.stream(key, options);
  const start = from?.offset ?? 0;
  let line = (from?.line ?? 1) - 1;
  for await (const lines of splitLines(body, MAX_LINE_BYTES)) {
    const entries: Entry[] = [];
    const numbers: number[] = [];
    for (const { text, end } of lines) {
      line += 1;
      const clean = line === 1 && text?.startsWith("\uFEFF") ? text.slice(1) : text;
      if (clean !== null && clean.trim() === "") continue;
      const next = { source: "manifest" as const, file: key, offset: start + end, line: line + 1, etag };
      entries.push({ record: parseLine(clean, line, uri, wanted), cursor: next });
      numbers.push(line);
    }
    if (entries.length > 0) yield { entries, lines: numbers };
  }
}

function parseLine(text: string | null, line: number, manifest: string, wanted: Wanted): InputRecord {
  const broken = (message: string, id = `line ${line}`): InputRecord => {
    return { id, image: null, error: rowError("RECORD_INVALID", message) };
  };
  if (text === null) return broken(`longer than ${MAX_LINE_BYTES} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return broken("not valid JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return broken("not a JSON object");
  const fields = value as Record<string, z.infer<ReturnType<typeof z.json>>>;
  const { columns, keep } = wanted;
  // Only the line's own: a column may be called as something that every object has.
  const field = (name: string) => (Object.hasOwn(fields, name) ? fields[name] : undefined);
  const [id, image] = [field(columns.id), field(columns.image)];
  const named = typeof id === "string" || typeof id === "number" ? String(id) : null;
  if (id !== undefined && id !== null && named === null)
    return broken(`\`${columns.id}\` is neither text nor a number`);

  const record: InputRecord = { id: named ?? `line ${line}`, image: null };
  const kept = keep.filter((name) => Object.hasOwn(fields, name));
  if (kept.length > 0) record.kept = Object.fromEntries(kept.map((name) => [name, fields[name]!]));
  if (typeof image === "string" && image !== "") {
    record.id = named ?? image;
    try {
      record.image = resolveUri(manifest, image);
    } catch (thrown) {
      if (!(thrown instanceof CapfleetError)) throw thrown;
      record.image = image;
      if (wanted.image) return { ...record, error: rowError("IMAGE_URI_INVALID", thrown.message) };
    }
  } else if (wanted.image) {
    return broken(image === undefined ? `no \`${columns.image}\`` : `\`${columns.image}\` is not text`, record.id);
  }
  if (wanted.column === null) return record;
  const texts = readTexts(field(wanted.column), wanted.column);
  if (Array.isArray(texts)) return { ...record, texts };
  if (wanted.optional && texts.code === "TEXT_MISSING") return { ...record, texts: [] };
  return { ...record, error: texts };
}

/** A text or a list of texts, as a list; otherwise what is wrong with it. */
export function readTexts(value: unknown, column: string): string[] | RowError {
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

const rowError = (code: ErrorCode, message: string): RowError => ({ code, message, retryable: false });

/** A JSONL manifest: one JSON object a line, with `image` and, if it likes, `id`. */
import { CapfleetError } from "../contract/errors.ts";
import type { InputRecord, RowError } from "../contract/record.ts";
import { resolveUri, type Store } from "../storage/index.ts";
import type { Dataset, Entry } from "./dataset.ts";
import { splitLines } from "./lines.ts";

const MAX_LINE_BYTES = 1024 * 1024;
/** A broken line this early means that the whole file is probably not what the user meant. */
const STRICT_LINES = 1_000;

/** `store` and `key` say where the manifest is; relative images are relative to it. */
export function manifestDataset(store: Store, key: string): Dataset {
  return {
    async *entries(cursor) {
      for await (const chunk of numbered(store, key, cursor)) yield chunk.entries;
    },
  };
}

/** Throws MANIFEST_INVALID, naming the line, where one of the first 1,000 is no record. */
export async function checkManifest(store: Store, key: string): Promise<void> {
  for await (const { entries, lines } of numbered(store, key, null)) {
    for (const [i, { record }] of entries.entries()) {
      const line = lines[i]!;
      if (line > STRICT_LINES) return;
      if (record.error) {
        throw new CapfleetError("MANIFEST_INVALID", `${store.uriOf(key)} line ${line}: ${record.error.message}`);
      }
    }
  }
}

async function* numbered(store: Store, key: string, cursor: Parameters<Dataset["entries"]>[0]) {
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
      const next = { source: "manifest" as const, offset: start + end, line: line + 1, etag };
      entries.push({ record: parseLine(clean, line, uri), cursor: next });
      numbers.push(line);
    }
    if (entries.length > 0) yield { entries, lines: numbers };
  }
}

function parseLine(text: string | null, line: number, manifest: string): InputRecord {
  if (text === null) return broken(line, `longer than ${MAX_LINE_BYTES} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return broken(line, "not valid JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return broken(line, "not a JSON object");
  const { id, image } = value as { id?: unknown; image?: unknown };
  const named = typeof id === "string" || typeof id === "number" ? String(id) : null;
  if (id !== undefined && id !== null && named === null) return broken(line, "`id` is neither text nor a number");
  if (typeof image !== "string" || image === "") {
    return { ...broken(line, image === undefined ? "no `image`" : "`image` is not text"), ...(named && { id: named }) };
  }
  try {
    return { id: named ?? image, image: resolveUri(manifest, image) };
  } catch (thrown) {
    if (!(thrown instanceof CapfleetError)) throw thrown;
    const error: RowError = { code: "IMAGE_URI_INVALID", message: thrown.message, retryable: false };
    return { id: named ?? image, image, error };
  }
}

function broken(line: number, message: string): InputRecord {
  return { id: `line ${line}`, image: null, error: { code: "RECORD_INVALID", message, retryable: false } };
}

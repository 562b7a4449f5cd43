/** Manifests: files of rows, one record each, as JSONL, CSV, TSV or Parquet. */
import { CapfleetError } from "../contract/errors.ts";
import type { Input } from "../contract/job.ts";
import type { Cursor } from "../contract/record.ts";
import type { JobTaskSpec } from "../contract/task.ts";
import type { Stores } from "../storage/index.ts";
import { readCsv } from "./csv.ts";
import type { Dataset } from "./dataset.ts";
import { openFiles } from "./files.ts";
import { readJsonl } from "./jsonl.ts";
import { readParquet } from "./parquet.ts";
import {
  FileBroken,
  idOf,
  type ManifestFile,
  type Row,
  type RowReader,
  recordOf,
  type WantedOfRow,
  wantedOfRow,
} from "./row.ts";

/** A broken row this early means that the whole manifest is probably not what the user meant. */
const STRICT_ROWS = 1_000;

type ManifestInput = Pick<Input, "uri" | "columns" | "keep"> & { kind: ManifestKind };
export type ManifestKind = "jsonl" | "csv" | "parquet";

const READERS: Record<ManifestKind, RowReader> = { jsonl: readJsonl, csv: readCsv, parquet: readParquet };

/** A record per row, file by file; relative images are relative to their file. A file that can't be read on is a record too. */
export function manifestDataset(input: ManifestInput, stores: Stores, task: JobTaskSpec): Dataset {
  const wanted = wantedOfRow(input, task);
  return {
    async *entries(cursor) {
      for await (const { file, rows } of readRows(input, stores, wanted, cursor)) {
        yield rows.map((row) => ({ record: recordOf(row, wanted, file), cursor: row.cursor }));
      }
    },
  };
}

/**
 * Throws INPUT_NOT_FOUND, INPUT_EMPTY (no rows), INVALID_URI (a range that is none), the store's errors, and, naming file,
 * line and field, MANIFEST_INVALID where one of the first 1,000 rows is not what the task needs, where only some of them
 * have an id or ids are now text, now numbers, and where none has a field that is to be kept.
 */
export async function checkManifest(input: ManifestInput, stores: Stores, task: JobTaskSpec): Promise<void> {
  await openFiles(input, stores).check();
  const wanted = wantedOfRow(input, task);
  // A table says by its columns what its rows have.
  const unseen = new Set(input.kind === "jsonl" ? wanted.needed : []);
  const refuse = (message: string) => new CapfleetError("MANIFEST_INVALID", message);
  let looked = 0;
  let first: { kind: string; where: string } | null = null;
  for await (const { file, rows } of readRows(input, stores, wanted, null)) {
    for (const row of rows.slice(0, STRICT_ROWS - looked)) {
      const where = row.place === "" ? file.uri : `${file.uri} ${row.place}`;
      const { error } = recordOf(row, wanted, file);
      if (error) throw refuse(row.place === "" ? error.message : `${where}: ${error.message}`);
      const kind = kindOfId(row, input);
      first ??= { kind, where };
      if (kind !== first.kind) {
        throw refuse(`\`${wanted.columns.id}\` is ${first.kind} in ${first.where}, and ${kind} in ${where}`);
      }
      for (const name of Object.keys(row.fields)) unseen.delete(name);
    }
    looked += rows.length;
    if (looked >= STRICT_ROWS) break;
  }
  if (looked === 0) throw new CapfleetError("INPUT_EMPTY", `${input.uri} holds no rows`);
  const [name] = unseen;
  if (name !== undefined) throw refuse(`${input.uri}: none of the first rows has \`${name}\``);
}

/** In a table a column is of one type, but only JSON says which one an id is of. */
function kindOfId(row: Row, { kind, columns }: ManifestInput): string {
  const id = idOf(row, columns.id);
  if (id === null) return "missing";
  return kind === "jsonl" ? (typeof id === "number" ? "a number" : "text") : "there";
}

async function* readRows(
  { kind, uri }: ManifestInput,
  stores: Stores,
  wanted: WantedOfRow,
  cursor: Cursor | null,
): AsyncGenerator<{ file: ManifestFile; rows: Row[] }> {
  const files = openFiles({ kind, uri }, stores);
  const { store } = files;
  const from = cursor?.source === "manifest" || cursor?.source === "parquet" ? cursor : null;
  for await (const object of files.list(from)) {
    const { key } = object;
    const name = files.nameOf(key);
    const file = { store, object, uri: store.uriOf(key), name, isOneOfSeveral: files.areSeveral };
    try {
      for await (const rows of READERS[kind](file, wanted, key === from?.file ? from : null)) yield { file, rows };
    } catch (thrown) {
      if (!(thrown instanceof FileBroken)) throw thrown;
      yield { file, rows: [{ place: "", fields: thrown.message, cursor: thrown.cursor }] };
    }
  }
}

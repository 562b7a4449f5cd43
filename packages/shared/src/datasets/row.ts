/** A row of a manifest, whatever its format, and the record that it makes. */
import { CapfleetError } from "../contract/errors.ts";
import type { Input } from "../contract/job.ts";
import type { Cursor, InputRecord } from "../contract/record.ts";
import type { JobTaskSpec } from "../contract/task.ts";
import { type ObjectInfo, resolveUri, type Store } from "../storage/index.ts";
import { type Fields, fieldOf, rowError, type Wanted, wantedOf, withFields } from "./fields.ts";

export interface ManifestFile {
  store: Store;
  object: ObjectInfo;
  uri: string;
  /** What ids call it. */
  name: string;
  /** Whether the manifest has other files as well, so that a line's number names no line. */
  isOneOfSeveral: boolean;
}

export interface Row {
  /** Where it is in its file: `line 7`, `row 7`. Empty for what is wrong with the file as a whole. */
  place: string;
  /** Or what is wrong with it. */
  fields: Fields | string;
  /** The id, to its last digit, where the number in `fields` is not exactly it. */
  exactId?: string;
  /** Where the manifest goes on after it. */
  cursor: Cursor;
}

/** Reads a file's rows, after `cursor` where it is in this file. Throws FileBroken and the store's errors. */
export type RowReader = (file: ManifestFile, wanted: WantedOfRow, cursor: Cursor | null) => AsyncGenerator<Row[]>;

/** Nothing more can be read of a file; `cursor` is its end. */
export class FileBroken extends Error {
  readonly cursor: Cursor;

  constructor(message: string, cursor: Cursor) {
    super(message);
    this.cursor = cursor;
  }
}

export interface WantedOfRow extends Wanted {
  columns: Input["columns"];
  /** Every field that a record is made of, where it is there. */
  names: readonly string[];
  /** Those that a table must have: what the task needs, and what the user has named. */
  needed: readonly string[];
}

export function wantedOfRow({ columns, keep }: Pick<Input, "columns" | "keep">, task: JobTaskSpec): WantedOfRow {
  const wanted = wantedOf(task, keep);
  const others = wanted.column === null ? keep : [wanted.column, ...keep];
  const isImageNeeded = wanted.image || columns.image !== "image";
  const needed = [...(isImageNeeded ? [columns.image] : []), ...(columns.id === "id" ? [] : [columns.id]), ...others];
  const names = [columns.image, columns.id, ...others];
  return { ...wanted, columns, names: [...new Set(names)], needed: [...new Set(needed)] };
}

/** What is wrong with a table that has these columns; null where nothing is. */
export function columnProblem(columns: readonly string[], { needed }: WantedOfRow): string | null {
  const absent = needed.find((name) => !columns.includes(name));
  if (absent === undefined) return null;
  const listed = columns.slice(0, 20).map((name) => `\`${name}\``);
  return `no column \`${absent}\`; there are ${listed.join(", ")}${columns.length > 20 ? ", …" : ""}`;
}

/** The record's id is the row's, else its image, else its place. */
export function recordOf(row: Row, wanted: WantedOfRow, file: ManifestFile): InputRecord {
  const { fields } = row;
  const broken = (message: string, id = placeOf(row, file)): InputRecord => {
    const where = row.place === "" ? `${file.uri}: ` : "";
    return { id, image: null, error: rowError("RECORD_INVALID", `${where}${message}`) };
  };
  if (typeof fields === "string") return broken(fields);
  const { columns } = wanted;
  const id = idOf(row, columns.id);
  if (id !== null && typeof id !== "string" && typeof id !== "number") {
    return broken(`\`${columns.id}\` is neither text nor a number`);
  }
  const named = id === null ? null : (row.exactId ?? String(id));
  const image = fieldOf(fields, columns.image) ?? "";
  const record: InputRecord = { id: named ?? placeOf(row, file), image: null };
  if (typeof image === "string" && image !== "") {
    record.id = named ?? image;
    try {
      record.image = resolveUri(file.uri, image);
    } catch (thrown) {
      if (!(thrown instanceof CapfleetError)) throw thrown;
      record.image = image;
      if (wanted.image) return { ...withFields(record, fields, wanted), error: uriError(thrown) };
    }
  } else if (wanted.image) {
    return broken(image === "" ? `no \`${columns.image}\`` : `\`${columns.image}\` is not text`, record.id);
  }
  return withFields(record, fields, wanted);
}

/** Null where the row has none: no field, nothing in it, or an empty text. */
export function idOf({ fields }: Row, column: string): Fields[string] {
  const id = typeof fields === "string" ? null : fieldOf(fields, column);
  return id === undefined || id === "" ? null : id;
}

function placeOf({ place }: Row, { name, isOneOfSeveral }: ManifestFile): string {
  if (place === "") return name;
  return isOneOfSeveral ? `${name} ${place}` : place;
}

const uriError = ({ message }: CapfleetError) => rowError("IMAGE_URI_INVALID", message);

/**
 * Parquet: a record a row, of which only the wanted columns are read. In memory are the compressed bytes of these columns,
 * of one row group or of several small ones (8 MiB), and the values of some of its rows: as many as make 16 MiB, or of a
 * group with lists among the columns all, as their pages do not begin where rows do.
 */
import { type FileMetaData, parquetMetadataAsync, parquetReadObjects, type RowGroup } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { CapfleetError } from "../contract/errors.ts";
import type { Cursor } from "../contract/record.ts";
import type { Fields } from "./fields.ts";
import { type ByteRange, ParquetBytes } from "./parquet-bytes.ts";
import { columnsOf, type ParquetColumns } from "./parquet-columns.ts";
import { parsers, toJson } from "./parquet-values.ts";
import { FileBroken, type ManifestFile, type Row, type WantedOfRow } from "./row.ts";

const FETCHED_BYTES = 8 * 1024 * 1024;
const DECODED_BYTES = 16 * 1024 * 1024;
/** Rows cost something even where their values are all the same. */
const DECODED_ROWS = 131_072;
const CHUNK = 1_000;
/** A cursor's row where nothing is left of a broken file. */
const NOTHING_LEFT = Number.MAX_SAFE_INTEGER;
const [MAGIC, ENCRYPTED_MAGIC] = ["PAR1", "PARE"];

/** A row group, and the number of its first row in the file. */
interface Group {
  group: RowGroup;
  start: number;
  rows: number;
}

export async function* readParquet(
  file: ManifestFile,
  wanted: WantedOfRow,
  cursor: Cursor | null,
): AsyncGenerator<Row[]> {
  const { key, etag } = file.object;
  const cursorAt = (row: number): Cursor => ({ source: "parquet", file: key, row, etag });
  const broken = (message: string) => new FileBroken(message, cursorAt(NOTHING_LEFT));
  const from = cursor?.source === "parquet" ? cursor.row : 0;
  if (from === NOTHING_LEFT) return;

  const bytes = new ParquetBytes(file.store, file.object);
  const metadata = await openParquet(bytes, broken);
  const columns = columnsOf(metadata, wanted);
  if (typeof columns === "string") throw broken(columns);
  for (const batch of batches(groupsOf(metadata), columns.names)) {
    const last = batch.at(-1)!;
    if (last.start + last.rows <= from) continue;
    const ranges = batch.flatMap(({ group }) => rangesOf(group, columns.names));
    const wrong = ranges.find(({ start, end }) => !(start >= 0 && start <= end && end <= bytes.byteLength));
    if (wrong) throw broken(`row ${batch[0]!.start + 1} and those that follow lie outside the file`);
    await bytes.hold(ranges);
    for (const here of batch) {
      const step = rowsAtOnce(here, columns);
      for (let start = Math.max(0, from - here.start); start < here.rows; start += step) {
        const end = Math.min(start + step, here.rows);
        const first = here.start + start;
        const values = await attempt(
          () => readValues(bytes, metadata, here.group, columns, start, end),
          (why) => broken(`rows ${first + 1} to ${here.start + end} can't be read: ${why}`),
        );
        for (let at = 0; at < values.length; at += CHUNK) {
          yield values.slice(at, at + CHUNK).map((fields, i) => {
            const number = first + at + i + 1;
            return { place: `row ${number}`, fields, cursor: cursorAt(number) };
          });
        }
      }
    }
  }
}

/** By its footer. Throws FileBroken and the store's errors. */
export async function countParquet({ store, object }: ManifestFile): Promise<number> {
  const { key, etag } = object;
  const broken = (message: string) =>
    new FileBroken(message, { source: "parquet", file: key, row: NOTHING_LEFT, etag });
  const metadata = await openParquet(new ParquetBytes(store, object), broken);
  return [...groupsOf(metadata)].reduce((sum, { rows }) => sum + rows, 0);
}

async function openParquet(bytes: ParquetBytes, broken: (message: string) => FileBroken): Promise<FileMetaData> {
  const size = bytes.byteLength;
  const magic = async (start: number) => Buffer.from(await bytes.slice(start, start + 4)).toString("latin1");
  if (size < 12) throw broken("it is no Parquet file");
  await bytes.hold([]);
  const footer = { initialFetchSize: Math.min(size, 512 * 1024), parsers, geoparquet: false };
  return attempt(
    () => parquetMetadataAsync(bytes, footer),
    async (why) => {
      const [first, last] = [await magic(0), await magic(size - 4)];
      if (first === ENCRYPTED_MAGIC || last === ENCRYPTED_MAGIC) return broken("it is encrypted");
      if (last === MAGIC) return broken(`its footer can't be read: ${why}`);
      return broken(first === MAGIC ? "it is cut off: it lacks the end of a Parquet file" : "it is no Parquet file");
    },
  );
}

/** hyparquet meets damage with errors of any kind; the store's own are no damage. */
async function attempt<T>(
  read: () => Promise<T>,
  broken: (why: string) => FileBroken | Promise<FileBroken>,
): Promise<T> {
  try {
    return await read();
  } catch (thrown) {
    if (thrown instanceof CapfleetError) throw thrown;
    throw await broken((thrown as Error).message);
  }
}

function* groupsOf({ row_groups }: FileMetaData): Generator<Group> {
  let start = 0;
  for (const group of row_groups) {
    const rows = Number(group.num_rows);
    if (rows > 0) yield { group, start, rows };
    start += rows;
  }
}

/** Small neighbours together, so that a file of many costs few requests. */
function* batches(groups: Iterable<Group>, names: readonly string[]): Generator<Group[]> {
  let batch: Group[] = [];
  let size = 0;
  for (const here of groups) {
    const more = rangesOf(here.group, names).reduce((sum, { start, end }) => sum + end - start, 0);
    if (batch.length > 0 && size + more > FETCHED_BYTES) {
      yield batch;
      batch = [];
      size = 0;
    }
    batch.push(here);
    size += more;
  }
  if (batch.length > 0) yield batch;
}

const chunksOf = ({ columns }: RowGroup, names: readonly string[]) =>
  columns.flatMap(({ meta_data: chunk }) => (chunk && names.includes(chunk.path_in_schema[0]!) ? [chunk] : []));

const rangesOf = (group: RowGroup, names: readonly string[]): ByteRange[] =>
  chunksOf(group, names).map((chunk) => {
    const start = Number(chunk.dictionary_page_offset || chunk.data_page_offset);
    return { start, end: start + Number(chunk.total_compressed_size) };
  });

function rowsAtOnce({ group, rows }: Group, { names, hasNested }: ParquetColumns): number {
  if (hasNested) return rows;
  const size = chunksOf(group, names).reduce((sum, chunk) => sum + Number(chunk.total_uncompressed_size), 0);
  const parts = Math.ceil(Math.max(size / DECODED_BYTES, rows / DECODED_ROWS));
  return Math.ceil(rows / Math.max(1, parts));
}

/** Rows of one group, counted from its first. Throws whatever hyparquet throws. */
async function readValues(
  file: ParquetBytes,
  metadata: FileMetaData,
  group: RowGroup,
  { names, localTimes }: ParquetColumns,
  rowStart: number,
  rowEnd: number,
): Promise<Fields[]> {
  // Only this group: hyparquet looks through all that it is given, for each call.
  const part = { ...metadata, row_groups: [group] };
  const rows = await parquetReadObjects({
    file,
    metadata: part,
    columns: names,
    rowStart,
    rowEnd,
    compressors,
    parsers,
  });
  return rows.map((row) => {
    // Null is a value; undefined is what hyparquet has for a row behind the end of a column.
    const absent = names.find((name) => row[name] === undefined);
    if (absent !== undefined) throw new Error(`the column \`${absent}\` ends early`);
    return Object.fromEntries(names.map((name) => [name, toJson(row[name], localTimes.has(name))]));
  });
}

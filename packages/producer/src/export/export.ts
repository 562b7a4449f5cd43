/**
 * Labelled rows as a dataset, part by part: Parquet, tars with the images, or JSON lines. What a part holds follows from
 * its rows alone, so an export that was interrupted and goes on is, byte for byte, the one that was not.
 *
 *   source: parts of rows → labelled rows | rows with errors → lines, or samples with images → one object a part
 */
import type { Format, ResultRow } from "@capfleet/shared/contract";
import { columnsOf, type KeyedRow, type Line, linesOf, parquetFile, tarFile } from "@capfleet/shared/datasets";
import { Spool, type Store } from "@capfleet/shared/storage";
import { checkFormat } from "./formats.ts";
import { type ImageContext, withImages } from "./images.ts";
import type { ExportPart, ExportSource } from "./source.ts";
import { type Counts, type ExportOptions, Target, type Totals } from "./target.ts";

/** As many as their readers like: img2dataset's tars have 10,000 samples, DuckDB's row groups 122,880 rows. */
const ROWS_PER_PART: Record<Format, number> = { jsonl: 100_000, parquet: 100_000, webdataset: 10_000 };

export interface ExportRequest extends ImageContext, ExportOptions {
  source: ExportSource;
  /** An empty prefix, or one where this very export was begun. */
  store: Store;
  /** Rows that are done with, of `source.rows`. */
  progress(rows: number): void;
}

/** Throws INVALID_OPTION, OUTPUT_IN_USE, and the stores' errors: then the same request goes on later. */
export async function exportDataset(request: ExportRequest): Promise<Totals> {
  const { source, format, onlyKept, store, progress } = request;
  checkFormat(source.spec.task, format, "--to");
  const rowsPerPart = ROWS_PER_PART[format];
  const target = await Target.claim(store, source, { format, onlyKept }, rowsPerPart);
  const whole = await target.totals();
  if (whole) return whole;
  const totals: Totals = { parts: 0, rows: 0, failed: 0, written: 0, bytes: 0 };
  for await (const part of source.parts(rowsPerPart)) {
    const n = totals.parts;
    let counts = await target.counts(n);
    if (!counts) {
      counts = await writePart(request, target, n, part, (rows) => progress(totals.rows + rows));
      await target.putCounts(n, counts);
    }
    totals.parts += 1;
    for (const name of ["rows", "failed", "written", "bytes"] as const) totals[name] += counts[name];
    progress(totals.rows);
  }
  await target.putTotals(totals);
  return totals;
}

async function writePart(
  request: ExportRequest,
  target: Target,
  n: number,
  part: ExportPart,
  progress: (rows: number) => void,
): Promise<Counts> {
  const counts: Counts = { rows: 0, failed: 0, written: 0, bytes: 0 };
  await using errors = new ErrorLines();
  const failed = async (row: ResultRow) => {
    counts.failed += 1;
    await errors.add(row);
  };
  const labelled = async function* () {
    for await (const chunk of part.rows()) {
      for (const { row } of chunk) if (row.error) await failed(row);
      yield chunk.filter(({ row }) => !row.error);
      counts.rows += chunk.length;
      progress(counts.rows);
    }
  };
  const body = await bodyOf(request, labelled(), failed, (lines) => {
    counts.written += lines;
  });
  if (body) counts.bytes = await request.store.putStream(target.part(n), body);
  await errors.put(request.store, target.errors(n));
  return counts;
}

/** The part's bytes; null where nothing is in it. `wrote` is told of lines or samples as they go. */
async function bodyOf(
  { source: { spec }, format, onlyKept, ...images }: ExportRequest,
  rows: AsyncIterable<KeyedRow[]>,
  failed: (row: ResultRow) => Promise<void>,
  wrote: (lines: number) => void,
): Promise<AsyncIterable<Uint8Array> | null> {
  if (format === "webdataset") {
    const samples = await unlessEmpty(counted(withImages(spec.task, rows, images, failed), () => wrote(1)));
    return samples && tarFile(samples);
  }
  if (format === "parquet" || onlyKept) {
    const lines = await unlessEmpty(counted(tableLines(rows), (chunk) => wrote(chunk.length)));
    if (!lines) return null;
    return format === "parquet" ? parquetFile(columnsOf(spec), lines) : jsonLines(lines, keptLine);
  }
  const whole = await unlessEmpty(counted(rows, (chunk) => wrote(chunk.length)));
  return whole && jsonLines(whole, ({ row: { data: _, ...row } }) => row);

  async function* tableLines(rows: AsyncIterable<KeyedRow[]>): AsyncGenerator<Line[]> {
    for await (const chunk of rows) yield chunk.flatMap(({ row }) => linesOf(spec.task, row, onlyKept));
  }
}

/** A text that stays, as JSON has it. */
export function keptLine({ row: { id, image, member, kept }, pair }: Line): object {
  const { text, origin, itm } = pair!;
  return { id, image, ...(member && { member }), ...(kept && { kept }), text, origin, itm };
}

async function* jsonLines<Item>(chunks: AsyncIterable<Item[]>, line: (item: Item) => object) {
  for await (const chunk of chunks) yield Buffer.from(chunk.map((item) => `${JSON.stringify(line(item))}\n`).join(""));
}

async function* counted<Item>(items: AsyncIterable<Item>, count: (item: Item) => void): AsyncGenerator<Item> {
  for await (const item of items) {
    if (Array.isArray(item) && item.length === 0) continue;
    count(item);
    yield item;
  }
}

/** Looks at the first item; null where there is none. */
async function unlessEmpty<Item>(items: AsyncGenerator<Item>): Promise<AsyncIterable<Item> | null> {
  const first = await items.next();
  if (first.done) return null;
  return (async function* () {
    yield first.value;
    yield* items;
  })();
}

/** Rows with errors, as lines; on disk until the part is written, for they may be most of it. */
class ErrorLines implements AsyncDisposable {
  #spool: Spool | null = null;

  async add(row: ResultRow): Promise<void> {
    this.#spool ??= await Spool.open();
    await this.#spool.append(Buffer.from(`${JSON.stringify(row)}\n`));
  }

  async put(store: Store, key: string): Promise<void> {
    if (this.#spool) await store.putStream(key, this.#spool.chunks());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#spool?.close();
  }
}

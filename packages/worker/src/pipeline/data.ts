/**
 * A shard's labelled rows as a file for those who go on with them: Parquet, or a tar with the images. It is written before
 * the rows are committed, under a name that no other attempt has, and the committed rows name it. So of the files of a
 * shard one at most counts, whatever dies; the others go, at the latest when the job ends.
 */
import { randomUUID } from "node:crypto";
import { type InputRecord, type JobSpec, layout, type ResultRow } from "@capfleet/shared/contract";
import {
  columnsOf,
  imageEnding,
  type KeyedRow,
  linesOf,
  parquetFile,
  rowKey,
  type SampleWithImage,
  samplesOf,
  tarFile,
} from "@capfleet/shared/datasets";
import { Spool, type Spooled, type Store } from "@capfleet/shared/storage";

/** The images of a shard, kept on disk as they are fetched, until the tar is written in the order of the rows. */
export class Images implements AsyncDisposable {
  readonly #spool: Spool;
  readonly #places = new Map<number, Spooled & { ending: string }>();

  private constructor(spool: Spool) {
    this.#spool = spool;
  }

  static async open(): Promise<Images> {
    return new Images(await Spool.open());
  }

  /** `row`: the record's place in its shard. Throws IMAGE_UNREADABLE, and what a disk can't do. */
  async keep(row: number, bytes: Buffer, name: string): Promise<void> {
    const ending = imageEnding(bytes, name);
    this.#places.set(row, { ...(await this.#spool.append(bytes)), ending });
  }

  has(row: number): boolean {
    return this.#places.has(row);
  }

  /** Of a row that has one. */
  async get(row: number): Promise<{ image: Buffer; ending: string }> {
    const place = this.#places.get(row)!;
    return { image: await this.#spool.read(place), ending: place.ending };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#spool.close();
  }
}

/** Null where the job wants no tar. */
export const openImages = async ({ format }: JobSpec): Promise<Images | null> =>
  format === "webdataset" ? Images.open() : null;

/** Returns the file's key; null where the job wants none, or nothing would be in it. Throws the store's errors. */
export async function writeData(
  store: Store,
  spec: JobSpec,
  shard: number,
  records: readonly InputRecord[],
  rows: readonly ResultRow[],
  images: Images | null,
): Promise<string | null> {
  const attempt = randomUUID().slice(0, 8);
  if (images) {
    const labelled = rows.flatMap((row, i) =>
      row.error || !images.has(i) ? [] : [{ i, key: rowKey(shard, i), record: records[i]!, row }],
    );
    if (!labelled.some((one) => samplesOf(spec.task, one).length > 0)) return null;
    const key = layout.datum(shard, attempt, "tar");
    await store.putStream(key, tarFile(withImages(spec, labelled, images)));
    return key;
  }
  if (spec.format !== "parquet") return null;
  const lines = rows.filter(({ error }) => !error).flatMap((row) => linesOf(spec.task, row, false));
  if (lines.length === 0) return null;
  const key = layout.datum(shard, attempt, "parquet");
  await store.putStream(key, parquetFile(columnsOf(spec), [lines]));
  return key;
}

async function* withImages(
  { task }: JobSpec,
  labelled: readonly (KeyedRow & { i: number })[],
  images: Images,
): AsyncGenerator<SampleWithImage> {
  for (const one of labelled) {
    const samples = samplesOf(task, one);
    if (samples.length === 0) continue;
    const found = await images.get(one.i);
    for (const sample of samples) yield { ...sample, ...found };
  }
}

/**
 * The end of an incremental run: an index of the images that there are now and of the rows that they have, and the dataset
 * turned to it.
 *
 *   dataset.json → index/<run>.<attempt>/ → dataset.json (If-Match) → indexes that nobody needs any more deleted
 *
 * An index has a name of its own for each attempt, so that it is whole before anybody reads it, and two producers that
 * both think the job is theirs don't disturb each other: the first to turn the dataset has done it. Dying anywhere costs
 * the index that was being written; the next run that ends deletes it. The run stays pending until its job has ended.
 */
import {
  CapfleetError,
  type DatasetRoot,
  datasetLayout,
  INDEX_PART,
  type IndexEntry,
  type JobFile,
  type ResultRow,
} from "@capfleet/shared/contract";
import { InStep, listImages, readIndex } from "@capfleet/shared/datasets";
import { faultPoint } from "@capfleet/shared/faults";
import type { Store, Stores } from "@capfleet/shared/storage";
import { ulid } from "ulid";
import { readShardRows } from "../jobs/rows.ts";
import { contentOf, readRoot, writeRoot } from "./root.ts";

export interface EndedRun {
  file: JobFile;
  out: string;
  /** All of them committed. */
  shards: number;
  retries: number;
}

/**
 * Makes the rows of a run those of its dataset. Leaves a dataset alone that has gone on without it. Safe to repeat. Throws
 * OBJECT_NOT_FOUND where the dataset or a part of it is gone, the stores' errors, or the signal's reason.
 */
export async function publishRun(ended: EndedRun, stores: Stores, signal: AbortSignal): Promise<void> {
  const { file, out } = ended;
  const run = datasetLayout.runOf(out);
  const root = stores.at(file.spec.input.since!.root);
  for (;;) {
    const found = await readRoot(root);
    if (!found) throw new CapfleetError("OBJECT_NOT_FOUND", `${root.uriOf(datasetLayout.dataset)} is gone`);
    const base = baseOf(found.root, ended);
    if (base === undefined) return;
    // Those that are there now are done with once the dataset is turned; later ones may be another run's.
    const before = await listIndexes(root);
    const index = `${run}.${ulid()}`;
    const merged = mergeIndex({
      listing: listImages(stores.at(file.spec.input.uri), null),
      base: readIndex(root, base),
      rows: rowsOf(stores.at(out), ended.shards),
      run,
      signal,
    });
    const entries = await writeIndex(root, index, merged);
    faultPoint("publish.index.written", run);
    signal.throwIfAborted();
    const current = { run, index, fingerprint: contentOf(file.spec), entries };
    // Dying before this line leaves the dataset as it was; after it, indexes that nobody reads.
    if (await writeRoot(root, { ...found.root, current }, found.etag)) {
      faultPoint("publish.turned", run);
      // Who reads the index that this one took the place of may finish; it goes with the next run.
      const done = before.filter((name) => name !== base);
      for (const name of done) await deleteIndex(root, name);
      return;
    }
    // Quicker was another producer, or this one: an answer that got lost is asked for again.
    if ((await readRoot(root))?.root.current?.index === index) return;
    await deleteIndex(root, index);
  }
}

/** A run that has ended makes way for the next one. Safe to repeat; without it, the next one sees that the job has ended. */
export async function releaseRun({ id, spec }: JobFile, stores: Stores): Promise<void> {
  const root = stores.at(spec.input.since!.root);
  for (;;) {
    const found = await readRoot(root).catch((thrown: unknown) => {
      if (thrown instanceof CapfleetError && thrown.code === "OUTPUT_IN_USE") return null;
      throw thrown;
    });
    if (found?.root.pending?.job !== id) return;
    if (await writeRoot(root, { ...found.root, pending: null }, found.etag)) return;
  }
}

/**
 * The index that the run's own is made from (null: from none); undefined where the dataset is to stay as it is: it has
 * been turned already, or another run has begun or ended since. A run that ended otherwise and finished when it was
 * retried still counts while the dataset is as it found it.
 */
function baseOf({ current, pending }: DatasetRoot, { file, out, retries }: EndedRun): string | null | undefined {
  const run = datasetLayout.runOf(out);
  const { index } = file.spec.input.since!;
  const isPending = pending?.job === file.id;
  if (pending !== null && !isPending) return undefined;
  if (current?.run === run) return retries > 0 ? current.index : undefined;
  if (isPending) return index;
  const isLater = current === null || current.run < run;
  return isLater && (index === null || index === current?.index) ? index : undefined;
}

export interface Merge {
  /** The images that there are. */
  listing: AsyncIterable<{ key: string }>;
  /** What was known before the run. */
  base: AsyncIterable<IndexEntry[]>;
  /** What the run has found. */
  rows: AsyncIterable<Omit<IndexEntry, "run">[]>;
  run: string;
  signal: AbortSignal;
}

/** The entries of a new index, a part at a time. All three are sorted by the bytes of their keys, and so is it. */
export async function* mergeIndex({ listing, base, rows, run, signal }: Merge): AsyncGenerator<IndexEntry[]> {
  const known = new InStep(base);
  const own = new InStep(rows);
  let part: IndexEntry[] = [];
  for await (const { key } of listing) {
    signal.throwIfAborted();
    const mine = await own.at(key);
    const entry = mine ? { ...mine, run } : await known.at(key);
    if (!entry) continue;
    part.push(entry);
    if (part.length < INDEX_PART) continue;
    yield part;
    part = [];
  }
  if (part.length > 0) yield part;
}

/** The run's rows, in order. One that failed and may succeed is none: the next run takes its image again. */
async function* rowsOf(store: Store, shards: number): AsyncGenerator<Omit<IndexEntry, "run">[]> {
  for (let shard = 0; shard < shards; shard++) {
    const { records, lines } = await readShardRows(store, shard);
    yield records.flatMap(({ id, etag }, row) => {
      const { error } = JSON.parse(lines[row]!) as ResultRow;
      return error?.retryable ? [] : [{ key: id, etag: etag!, shard, row }];
    });
  }
}

/** Returns the number of entries. */
async function writeIndex(root: Store, index: string, parts: AsyncIterable<IndexEntry[]>): Promise<number> {
  let entries = 0;
  let n = 0;
  for await (const part of parts) {
    await root.put(datasetLayout.indexPart(index, n), `${part.map((entry) => JSON.stringify(entry)).join("\n")}\n`);
    faultPoint("publish.part.written", n);
    entries += part.length;
    n += 1;
  }
  return entries;
}

async function listIndexes(root: Store): Promise<string[]> {
  const names = new Set<string>();
  for await (const { key } of root.list({ prefix: datasetLayout.indexes })) names.add(key.split("/")[1]!);
  return [...names];
}

async function deleteIndex(root: Store, index: string): Promise<void> {
  for await (const { key } of root.list({ prefix: datasetLayout.index(index) })) await root.delete(key);
}

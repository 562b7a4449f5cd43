/**
 * Joins 300,000 listed images with an index of as many, and merges the next index, in a process of its own whose heap is
 * limited. Files are in a real folder but for the images, which are only listed: they stand for a bucket of that size.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { datasetLayout, INDEX_PART, type IndexEntry } from "@capfleet/shared/contract";
import { incrementalDataset, readIndex } from "@capfleet/shared/datasets";
import { type ObjectInfo, type Store, Stores } from "@capfleet/shared/storage";
import { mergeIndex } from "../src/incremental/publish.ts";

const IMAGES = 300_000;
/** One in so many has changed. */
const CHANGED = 1_000;
const key = (n: number) => `photos/2026/with-a-name-of-usual-length/image-${String(n).padStart(9, "0")}.jpg`;
const etagOf = (n: number) => `d41d8cd98f00b204e9800998ecf8${String(n).padStart(9, "0")}`;

const folder = await mkdtemp(join(tmpdir(), "capfleet-index-"));
const root = new Stores().at(`${folder}/`);
const source = {
  uriOf: (name: string) => `s3://bucket/${name}`,
  async *list(): AsyncGenerator<ObjectInfo> {
    for (let n = 0; n < IMAGES; n++) yield { key: key(n), size: 1, etag: etagOf(n) };
  },
} as unknown as Store;
try {
  for (let part = 0; part * INDEX_PART < IMAGES; part++) {
    const entries = Array.from({ length: INDEX_PART }, (_, i): IndexEntry => {
      const n = part * INDEX_PART + i;
      return { key: key(n), etag: n % CHANGED === 0 ? "old" : etagOf(n), run: "r", shard: n >> 9, row: n & 511 };
    });
    await root.put(datasetLayout.indexPart("r", part), entries.map((entry) => JSON.stringify(entry)).join("\n"));
  }
  let changed = 0;
  const rows: Omit<IndexEntry, "run">[] = [];
  for await (const chunk of incrementalDataset(source, root, "r").entries(null)) {
    for (const { record } of chunk) rows.push({ key: record.id, etag: record.etag!, shard: 0, row: changed++ });
  }
  let entries = 0;
  const own = async function* () {
    yield rows;
  };
  const { signal } = new AbortController();
  const merged = mergeIndex({ listing: source.list(), base: readIndex(root, "r"), rows: own(), run: "s", signal });
  for await (const part of merged) entries += part.length;
  process.stdout.write(JSON.stringify({ changed, entries }));
} finally {
  await rm(folder, { recursive: true });
}

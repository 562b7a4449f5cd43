/** How many records an input has, as cheaply as its kind lets: of Parquet the footers are read, of JSONL no line is parsed. */
import type { Input } from "../contract/job.ts";
import { decodingSchema, type JobTaskSpec } from "../contract/task.ts";
import type { Stores } from "../storage/index.ts";
import { readCsv } from "./csv.ts";
import type { Dataset } from "./dataset.ts";
import { openFiles } from "./files.ts";
import { incrementalDataset } from "./incremental.ts";
import { countParquet } from "./parquet.ts";
import { prefixDataset } from "./prefix.ts";
import { FileBroken, type ManifestFile } from "./row.ts";
import { readLines } from "./text-file.ts";
import { webdatasetDataset } from "./webdataset.ts";

/** Whatever the task is: what it needs of a record makes an error of the record, and not another number of them. */
const ANY_TASK: JobTaskSpec = { name: "caption", decoding: decodingSchema.parse({}), captions: 1, prompt: null };

/** Numbers that add up, as they become known. Throws INPUT_NOT_FOUND, INVALID_URI, SOURCE_CHANGED and the store's errors. */
export async function* countRecords(input: Input, stores: Stores): AsyncGenerator<number> {
  const { kind, uri, since } = input;
  if (since) yield* countEntries(incrementalDataset(stores.at(uri), stores.at(since.root), since.index));
  else if (kind === "prefix") yield* countEntries(prefixDataset(stores.at(uri)));
  else if (kind === "webdataset") yield* countEntries(webdatasetDataset(input, stores, ANY_TASK));
  else yield* countRows({ ...input, kind }, stores);
}

async function* countEntries(dataset: Dataset): AsyncGenerator<number> {
  for await (const entries of dataset.entries(null)) yield entries.length;
}

type Manifest = Input & { kind: keyof typeof COUNTERS };

async function* countRows({ kind, uri }: Manifest, stores: Stores): AsyncGenerator<number> {
  const files = openFiles({ kind, uri }, stores);
  const { store } = files;
  for await (const object of files.list(null)) {
    const { key } = object;
    const file = { store, object, uri: store.uriOf(key), name: files.nameOf(key), isOneOfSeveral: files.areSeveral };
    try {
      yield* COUNTERS[kind](file);
    } catch (thrown) {
      // A job has a row that says so.
      if (!(thrown instanceof FileBroken)) throw thrown;
      yield 1;
    }
  }
}

const COUNTERS = {
  async *jsonl(file: ManifestFile) {
    for await (const lines of readLines(file, null))
      yield lines.filter(({ text }) => text === null || text.trim() !== "").length;
  },
  async *csv(file: ManifestFile) {
    const nothing = {
      image: false,
      column: null,
      optional: true,
      keep: [],
      columns: { image: "", id: "" },
      names: [],
      needed: [],
    };
    for await (const rows of readCsv(file, nothing, null)) yield rows.length;
  },
  async *parquet(file: ManifestFile) {
    yield await countParquet(file);
  },
};

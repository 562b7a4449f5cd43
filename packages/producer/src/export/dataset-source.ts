/** The rows of a dataset of incremental runs; a part is a fixed number of its index's. */
import {
  type DatasetRoot,
  datasetLayout,
  INDEX_PART,
  type IndexEntry,
  type ResultRow,
} from "@capfleet/shared/contract";
import { type KeyedRow, rowKey, type TableSpec } from "@capfleet/shared/datasets";
import type { Store, Stores } from "@capfleet/shared/storage";
import { viewRows } from "../incremental/view.ts";
import { readLines } from "../jobs/lines.ts";
import type { ExportPart, ExportSource } from "./source.ts";

/** `current`: what the dataset shows; a run that turns it to another index meanwhile does not disturb. */
export function datasetSource(
  root: Store,
  { index, entries }: NonNullable<DatasetRoot["current"]>,
  spec: TableSpec,
  stores: Stores,
): ExportSource {
  const parts = Math.ceil(entries / INDEX_PART);
  return {
    identity: { index },
    spec,
    rows: entries,
    *parts(rowsPerPart) {
      const each = Math.max(1, Math.floor(rowsPerPart / INDEX_PART));
      for (let from = 0; from < parts; from += each)
        yield partOf(root, index, from, Math.min(from + each, parts), stores);
    },
  };
}

function partOf(root: Store, index: string, from: number, to: number, stores: Stores): ExportPart {
  return {
    async *rows() {
      for (let part = from; part < to; part++) {
        const entries = async function* () {
          yield await readLines<IndexEntry>(root, datasetLayout.indexPart(index, part));
        };
        let next = 0;
        for await (const rows of viewRows(root, entries(), stores)) {
          yield rows.map(({ record, line }): KeyedRow => {
            return { key: rowKey(part, next++), record, row: JSON.parse(line) as ResultRow };
          });
        }
      }
    },
  };
}

/** Where an export's rows come from. */
import type { KeyedRow, TableSpec } from "@capfleet/shared/datasets";

export interface ExportSource {
  /** What the rows are of, as JSON: an export goes on only with the very same rows. */
  identity: Record<string, string | number | null>;
  /** The task that the rows are answers of, and the columns of the input that were kept. */
  spec: TableSpec;
  /** How many rows there are, those with errors included. */
  rows: number;
  /** Always the same parts in the same order, of about so many rows each; nothing is read for a part that is not asked. */
  parts(rowsPerPart: number): AsyncIterable<ExportPart> | Iterable<ExportPart>;
}

export interface ExportPart {
  /** The rows in order, also those with an error, some at a time. Throws the stores' errors. */
  rows(): AsyncIterable<KeyedRow[]>;
}

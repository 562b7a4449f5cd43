/** A job's input: records in a fixed order, read as a stream that can be taken up again after any of them. */
import type { Cursor, InputRecord } from "../contract/record.ts";

export interface Entry {
  record: InputRecord;
  /** Where the dataset goes on after this record. */
  cursor: Cursor;
}

export interface Dataset {
  /**
   * Records after `cursor` (null: from the start), some at a time, or none. Memory does not grow with the dataset. Throws
   * SOURCE_CHANGED where a manifest is no longer the one that the cursor came from.
   */
  entries(cursor: Cursor | null): AsyncIterable<Entry[]>;
}

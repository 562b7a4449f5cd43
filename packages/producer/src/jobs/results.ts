/** Rows read back: all of them, those that failed, or the texts that a job that cleans has kept. */
import { CapfleetError, type JobTaskSpec, layout, type ResultRow } from "@capfleet/shared/contract";
import { cleans, linesOf } from "@capfleet/shared/datasets";
import type { Store } from "@capfleet/shared/storage";
import { keptLine } from "../export/export.ts";
import { readTexts } from "./lines.ts";

export interface Selection {
  /** Only rows that failed. */
  errors: boolean;
  /** The texts that a job that cleans has kept: a line each. */
  kept: boolean;
}

/** `name`: of the job or dataset. Throws INVALID_OPTION. */
export function checkSelection(name: string, task: JobTaskSpec, { errors, kept }: Selection): void {
  if (kept && !cleans(task))
    throw new CapfleetError("INVALID_OPTION", `--kept: ${name} is ${task.name}, which keeps all`);
  if (kept && errors) throw new CapfleetError("INVALID_OPTION", "--kept and --errors: give one of them");
}

/** The lines of each committed shard, in order; from the shard `from` on. */
export async function* resultShards(store: Store, from = 0): AsyncGenerator<{ shard: number; lines: string[] }> {
  // The last name before the shard's.
  const after = from === 0 ? {} : { after: layout.result(from - 1) };
  for await (const { key } of store.list({ prefix: layout.results, ...after })) {
    const shard = layout.numberOf(key);
    if (shard !== null && shard >= from) yield { shard, lines: await readTexts(store, key) };
  }
}

/** What is selected of rows, as JSON. */
export function selected(task: JobTaskSpec, lines: readonly string[], { errors, kept }: Selection): readonly string[] {
  if (errors) return lines.filter((line) => (JSON.parse(line) as ResultRow).error !== undefined);
  if (!kept) return lines;
  return lines.flatMap((line) => {
    const texts = linesOf(task, JSON.parse(line) as ResultRow, true);
    return texts.map((text) => JSON.stringify(keptLine(text)));
  });
}

/** A job's rows, read back: all of them, those that failed, or the texts that a job that cleans has kept. */
import { CapfleetError, type JobFile, layout, type ResultRow } from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";

export interface Selection {
  /** Only rows that failed. */
  errors: boolean;
  /** The texts that a job that cleans has kept: a line each. */
  kept: boolean;
}

/** Throws INVALID_OPTION. */
export function checkSelection({ id, spec }: JobFile, { errors, kept }: Selection): void {
  const { name } = spec.task;
  if (kept && name !== "capfilt" && name !== "filter")
    throw new CapfleetError("INVALID_OPTION", `--kept: ${id} is ${name}, which keeps all`);
  if (kept && errors) throw new CapfleetError("INVALID_OPTION", "--kept and --errors: give one of them");
}

/** The selected lines of each committed shard, in order; from the shard `from` on. */
export async function* resultShards(store: Store, selection: Selection, from = 0) {
  // The last name before the shard's.
  const after = from === 0 ? {} : { after: layout.result(from - 1) };
  for await (const { key } of store.list({ prefix: layout.results, ...after })) {
    const shard = layout.numberOf(key);
    if (shard === null || shard < from) continue;
    const text = (await store.read(key)).bytes.toString("utf8");
    yield { shard, lines: selected(text, selection) };
  }
}

function selected(text: string, { errors, kept }: Selection): string[] {
  const lines = text.split("\n").filter((line) => line !== "");
  if (errors) return lines.filter(isErrorRow);
  return kept ? lines.flatMap(keptLines) : lines;
}

const isErrorRow = (line: string) => (JSON.parse(line) as ResultRow).error !== undefined;

function keptLines(line: string): string[] {
  const { id, image, pairs = [] } = JSON.parse(line) as ResultRow;
  const kept = pairs.filter(({ kept }) => kept);
  return kept.map(({ text, origin, itm }) => JSON.stringify({ id, image, text, origin, itm }));
}

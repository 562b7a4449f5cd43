/** A job's rows in pages. What a page may cost is bounded, whatever is looked for. */
import { layout, pairSchema, type ResultRow, resultRowSchema, textsOf } from "@capfleet/shared/contract";
import * as z from "zod";
import { readLines } from "../jobs/lines.ts";
import { resultShards, type Selection, selected } from "../jobs/results.ts";
import { type RowFilter, rowFilter } from "../jobs/row-filter.ts";
import type { Found } from "./views.ts";

/** Where a page has had to look at so many shards, it is shorter than it might be. */
const MAX_SHARDS_READ = 50;

/** A shard, and a line in it (from 0): of a row; of a cursor, among what is selected. */
export const POSITION = /^(\d{1,12})\.(\d{1,9})$/;

const count = z.int().min(0);
const texts = z.array(z.string());

// JSON as a schema that refers to itself is one that documents can't hold.
const kept = z.record(z.string(), z.unknown()).optional();
const keptSchema = pairSchema.extend({ ...resultRowSchema.pick({ id: true, image: true, member: true }).shape, kept });
const wholeSchema = resultRowSchema.extend({ kept });
const rowSchema = z.union([keptSchema.strict(), wholeSchema]).meta({ id: "Row" });
export const rowPageSchema = z
  .strictObject({
    rows: z.array(rowSchema),
    positions: z
      .array(z.string())
      .meta({ description: "Where each row stands in the job; a thumbnail is asked by it" }),
    texts: z
      .strictObject({ given: texts.nullable(), rows: z.array(texts.nullable()) })
      .nullable()
      .meta({ description: "With `texts`: what was asked of all images, or of each row's" }),
    looked_at: count.meta({ description: "Rows that were passed in search of these" }),
    next_cursor: z.string().nullable().meta({
      description:
        "Where the next page begins, also if its rows are still to come; null: the job has ended, and these are its last rows",
    }),
  })
  .meta({ id: "RowPage" });
export type RowPage = z.infer<typeof rowPageSchema>;

export interface RowQuery {
  selection: Selection;
  filter: RowFilter;
  cursor: string | null;
  limit: number;
  /** Whether what was asked of the images is wanted as well. */
  texts: boolean;
}

/** Throws the stores' errors. */
export async function rowPage(found: Found, query: RowQuery): Promise<RowPage> {
  const { task } = found.file.spec;
  const source = query.texts ? textsOf(task) : null;
  const asked = source && { given: "given" in source ? source.given : null, rows: [] as (string[] | null)[] };
  const page: RowPage = { rows: [], positions: [], texts: asked, looked_at: 0, next_cursor: null };
  // Read before the results: those of a job that had ended by then are all there.
  const { ended } = found.state;
  const [, shardText = "0", lineText = "0"] = POSITION.exec(query.cursor ?? "") ?? [];
  const next = { shard: Number(shardText), line: Number(lineText) };
  const choose = chooser(query, (lines) => selected(task, lines, query.selection));
  let read = 0;
  for await (const { shard, lines } of resultShards(found.store, next.shard)) {
    if (shard !== next.shard && !ended) break;
    if (shard !== next.shard) next.line = 0;
    const all = choose(lines);
    const some = all.slice(next.line, next.line + query.limit - page.rows.length);
    page.rows.push(...some.map(({ json }) => rowSchema.parse(JSON.parse(json))));
    page.positions.push(...some.map(({ line }) => `${shard}.${line}`));
    if (asked) asked.rows.push(...(await textsOfRows(found, asked.given, shard, some)));
    read += 1;
    const isThrough = next.line + some.length >= all.length;
    const begun = next.line === 0 ? 0 : (all[next.line - 1]?.line ?? -1) + 1;
    page.looked_at += Math.max(0, (isThrough ? lines.length : some.at(-1)!.line + 1) - begun);
    next.line = isThrough ? 0 : next.line + some.length;
    next.shard = isThrough ? shard + 1 : shard;
    if (page.rows.length === query.limit || read === MAX_SHARDS_READ)
      return { ...page, next_cursor: `${next.shard}.${next.line}` };
  }
  return { ...page, next_cursor: ended ? null : `${next.shard}.${next.line}` };
}

interface Chosen {
  line: number;
  json: string;
}

/** What of a shard's lines is wanted: a line may give several texts that were kept, or nothing. */
function chooser({ filter }: RowQuery, select: (lines: string[]) => readonly string[]) {
  const passes = rowFilter(filter);
  return (lines: readonly string[]): Chosen[] =>
    lines.flatMap((text, line) => {
      if (passes && !passes(JSON.parse(text) as ResultRow)) return [];
      return select([text]).map((json) => ({ line, json }));
    });
}

/** Of texts that the records bring along, those of some rows of a shard. */
async function textsOfRows({ store }: Found, given: string[] | null, shard: number, rows: readonly Chosen[]) {
  if (given !== null || rows.length === 0) return rows.map(() => null);
  const records = await readLines<{ texts?: string[] }>(store, layout.shard(shard));
  return rows.map(({ line }) => records[line]?.texts ?? null);
}

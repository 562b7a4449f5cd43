/** Some of a cleaned dataset's texts, with their pictures, to be looked at. */
import { type InputRecord, layout, type Pair, type ResultRow } from "@capfleet/shared/contract";
import type { Store, Stores } from "@capfleet/shared/storage";
import { readShardRows } from "../jobs/rows.ts";
import { thumbnailOf } from "../pictures/thumbnail.ts";

export interface Example {
  id: string;
  pair: Pair;
  /** A data: URI of a JPEG; null where the picture can't be shown. */
  picture: string | null;
}

/** Texts of one origin that were kept, or dropped. */
export type Kind = `${Pair["origin"]} ${"kept" | "dropped"}`;
export const kindOf = ({ origin, kept }: Pair): Kind => `${origin} ${kept ? "kept" : "dropped"}`;

const PER_KIND = 12;
/** Results that are read in search of examples: what is rare may be missing. */
const RESULTS_READ = 20;
const THUMBNAIL = 160;

/** From the job's first results. */
export async function findExamples(store: Store, stores: Stores): Promise<Map<Kind, Example[]>> {
  const found = new Map<Kind, { record: InputRecord; pair: Pair }[]>();
  let read = 0;
  for await (const { key } of store.list({ prefix: layout.results })) {
    const shard = layout.numberOf(key);
    if (shard === null) continue;
    // A row stands in the place of its record, which says where in a tar the image is.
    const { records, lines } = await readShardRows(store, shard);
    for (const [i, line] of lines.entries()) {
      const { pairs = [] } = JSON.parse(line) as ResultRow;
      for (const pair of pairs) {
        const some = found.get(kindOf(pair)) ?? [];
        found.set(kindOf(pair), some);
        if (some.length < PER_KIND) some.push({ record: records[i]!, pair });
      }
    }
    read += 1;
    if (read === RESULTS_READ) break;
  }
  const examples = new Map<Kind, Example[]>();
  for (const [kind, all] of found) {
    const shown: Example[] = [];
    for (const { record, pair } of all) shown.push({ id: record.id, pair, picture: await pictureOf(record, stores) });
    examples.set(kind, shown);
  }
  return examples;
}

/** Null where the image is gone, or is none that can be shown: the report is there all the same. */
async function pictureOf(record: InputRecord, stores: Stores): Promise<string | null> {
  try {
    const jpeg = await thumbnailOf(record, THUMBNAIL, stores);
    return `data:image/jpeg;base64,${jpeg.toString("base64")}`;
  } catch {
    return null;
  }
}

/** Every image below a prefix, in the order of its listing. A record's id is the key below the prefix. */
import type { Cursor } from "../contract/record.ts";
import type { Store } from "../storage/index.ts";
import type { Dataset, Entry } from "./dataset.ts";

const IMAGE_NAME = /\.(jpe?g|png|webp|gif|tiff?|avif)$/i;
const CHUNK = 500;

export function prefixDataset(store: Store): Dataset {
  return {
    async *entries(cursor) {
      const after = cursor?.source === "prefix" ? cursor.after : undefined;
      let chunk: Entry[] = [];
      for await (const { key } of store.list(after === undefined ? {} : { after })) {
        if (!IMAGE_NAME.test(key)) continue;
        const here: Cursor = { source: "prefix", after: key };
        chunk.push({ record: { id: key, image: store.uriOf(key) }, cursor: here });
        if (chunk.length === CHUNK) {
          yield chunk;
          chunk = [];
        }
      }
      if (chunk.length > 0) yield chunk;
    },
  };
}

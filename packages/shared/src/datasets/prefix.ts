/** Every image below a prefix, in the order of its listing. A record's id is the key below the prefix. */
import type { Cursor } from "../contract/record.ts";
import type { ObjectInfo, Store } from "../storage/index.ts";
import type { Dataset, Entry } from "./dataset.ts";

const IMAGE_NAME = /\.(jpe?g|png|webp|gif|tiff?|avif)$/i;
const CHUNK = 500;

export function prefixDataset(store: Store): Dataset {
  return {
    async *entries(cursor) {
      let chunk: Entry[] = [];
      for await (const { key } of listImages(store, cursor?.source === "prefix" ? cursor.after : null)) {
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

/** The images whose key comes after `after` (null: all). */
export async function* listImages(store: Store, after: string | null): AsyncGenerator<ObjectInfo> {
  for await (const object of store.list(after === null ? {} : { after })) if (IMAGE_NAME.test(object.key)) yield object;
}

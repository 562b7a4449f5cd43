/** Of the images below a prefix those that an index does not have as they are now: new ones, and others in their place. */
import type { Cursor } from "../contract/record.ts";
import type { Store } from "../storage/index.ts";
import type { Dataset, Entry } from "./dataset.ts";
import { InStep, readIndex } from "./image-index.ts";
import { listImages } from "./prefix.ts";

/** So that a dataset with few new images can be left in between: a chunk may be empty. */
const LOOKED_AT = 1_000;

/** `root` and `index` say where the index is; null: every image is new. */
export function incrementalDataset(source: Store, root: Store, index: string | null): Dataset {
  return {
    async *entries(cursor) {
      const after = cursor?.source === "prefix" ? cursor.after : null;
      const known = new InStep(readIndex(root, index, after));
      let looked = 0;
      let chunk: Entry[] = [];
      for await (const { key, etag } of listImages(source, after)) {
        if ((await known.at(key))?.etag !== etag) {
          const here: Cursor = { source: "prefix", after: key };
          chunk.push({ record: { id: key, image: source.uriOf(key), etag }, cursor: here });
        }
        looked += 1;
        if (looked % LOOKED_AT > 0) continue;
        yield chunk;
        chunk = [];
      }
      if (chunk.length > 0) yield chunk;
    },
  };
}

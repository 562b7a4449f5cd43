/**
 * The index of a dataset of incremental runs: a line per image, sorted by the bytes of the keys, in parts. It is read in
 * step with something else that is sorted so; one part at most is held.
 */
import { type IndexEntry, indexEntrySchema } from "../contract/dataset.ts";
import { CapfleetError } from "../contract/errors.ts";
import { datasetLayout, layout } from "../contract/layout.ts";
import { compareKeys, type Store } from "../storage/index.ts";
import { splitLines } from "./lines.ts";

/** The longest line: a file's path has 4,096 bytes at most, and JSON writes up to 6 for one. */
const MAX_LINE_BYTES = 64 * 1024;

/**
 * The entries of the index of that name (null: of none), some at a time; with `after`, at least all whose key comes after
 * it. Throws OBJECT_NOT_FOUND where a part is gone, and the store's errors.
 */
export async function* readIndex(
  root: Store,
  index: string | null,
  after: string | null = null,
): AsyncGenerator<IndexEntry[]> {
  if (index === null) return;
  const parts: string[] = [];
  for await (const { key } of root.list({ prefix: datasetLayout.index(index) })) {
    const missing = datasetLayout.indexPart(index, parts.length);
    if (layout.numberOf(key) !== parts.length) {
      throw new CapfleetError("OBJECT_NOT_FOUND", `${root.uriOf(missing)} is gone, and ${key} is there`);
    }
    parts.push(key);
  }
  for (const part of parts.slice(after === null ? 0 : await partOf(root, parts, after))) {
    const text = (await root.read(part)).bytes.toString("utf8").trimEnd();
    yield text.split("\n").map((line) => JSON.parse(line) as IndexEntry);
  }
}

/** The number of the part that `key` is in, if it is in any. */
async function partOf(root: Store, parts: readonly string[], key: string): Promise<number> {
  let low = 0;
  let high = parts.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (compareKeys(await firstKey(root, parts[middle]!), key) <= 0) low = middle;
    else high = middle;
  }
  return low;
}

async function firstKey(root: Store, part: string): Promise<string> {
  const { body } = await root.stream(part, { range: { start: 0, end: MAX_LINE_BYTES } });
  for await (const [line] of splitLines(body, MAX_LINE_BYTES)) {
    return indexEntrySchema.parse(JSON.parse(line!.text!)).key;
  }
  throw new CapfleetError("OBJECT_NOT_FOUND", `${root.uriOf(part)} is empty`);
}

/** Something sorted by key, from which keys are asked for in the same order. */
export class InStep<T extends { key: string }> {
  readonly #chunks: AsyncIterator<readonly T[]>;
  #chunk: readonly T[] = [];
  #next = 0;

  constructor(chunks: AsyncIterable<readonly T[]>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** What has that key; null where nothing has. Whatever comes before it has then been passed. */
  async at(key: string): Promise<T | null> {
    for (;;) {
      for (; this.#next < this.#chunk.length; this.#next++) {
        const here = this.#chunk[this.#next]!;
        const order = compareKeys(here.key, key);
        if (order >= 0) return order === 0 ? here : null;
      }
      const more = await this.#chunks.next();
      if (more.done) return null;
      this.#chunk = more.value;
      this.#next = 0;
    }
  }
}

/**
 * The bytes of a Parquet file as hyparquet asks for them: some tens of slices for a row group. What is known to be needed is
 * held beforehand, in few requests, and so is a small file as a whole.
 */
import type { AsyncBuffer } from "hyparquet";
import { CapfleetError } from "../contract/errors.ts";
import type { ObjectInfo, Store } from "../storage/index.ts";

/** In bytes from the file's start; `end` is exclusive. */
export interface ByteRange {
  start: number;
  end: number;
}

/** A request costs about as much time as reading so many bytes. */
const GAP = 1024 * 1024;
const SMALL_FILE = 1024 * 1024;

export class ParquetBytes implements AsyncBuffer {
  readonly byteLength: number;
  readonly #store: Store;
  readonly #object: ObjectInfo;
  #held: (ByteRange & { bytes: ArrayBuffer })[] = [];

  constructor(store: Store, object: ObjectInfo) {
    this.#store = store;
    this.#object = object;
    this.byteLength = object.size;
  }

  /** Lets go of what was held. Throws SOURCE_CHANGED where the file is no longer the one given, and the store's errors. */
  async hold(ranges: readonly ByteRange[]): Promise<void> {
    if (this.#isHeld({ start: 0, end: this.byteLength })) return;
    this.#held = [];
    const whole = { start: 0, end: this.byteLength };
    for (const range of this.byteLength <= SMALL_FILE ? [whole] : merged(ranges)) {
      this.#held.push({ ...range, bytes: await this.#read(range) });
    }
  }

  async slice(start: number, end = this.byteLength): Promise<ArrayBuffer> {
    const range = { start, end };
    const held = this.#isHeld(range);
    return held ? held.bytes.slice(start - held.start, end - held.start) : this.#read(range);
  }

  #isHeld({ start, end }: ByteRange) {
    return this.#held.find((range) => range.start <= start && end <= range.end);
  }

  async #read(range: ByteRange): Promise<ArrayBuffer> {
    const { key, etag } = this.#object;
    const bytes = new Uint8Array(range.end - range.start);
    const { body } = await this.#store.stream(key, { range, ifMatch: etag });
    let length = 0;
    for await (const chunk of body) {
      bytes.set(chunk, length);
      length += chunk.length;
    }
    if (length === bytes.length) return bytes.buffer;
    const message = `${this.#store.uriOf(key)} gave ${length} bytes of ${bytes.length}`;
    throw new CapfleetError("STORE_UNAVAILABLE", message);
  }
}

/** In the file's order; those with little between them are read in one. */
function merged(ranges: readonly ByteRange[]): ByteRange[] {
  const runs: ByteRange[] = [];
  for (const { start, end } of [...ranges].sort((a, b) => a.start - b.start)) {
    const run = runs.at(-1);
    if (run && start - run.end <= GAP) run.end = Math.max(run.end, end);
    else runs.push({ start, end });
  }
  return runs;
}

/**
 * The bytes of an object from front to back, with leaps. They come in windows, one ranged request each: a small one after
 * a leap, and larger and larger ones while reading goes on where it was. So small files in a tar are read through, a few
 * requests a tar, and large ones are leapt over, a small request each.
 */
import type { ObjectInfo, Store } from "../storage/index.ts";

const FIRST_WINDOW = 64 * 1024;
const LAST_WINDOW = 16 * 1024 * 1024;
/** A request costs about as much time as reading so many bytes. */
const LEAP = 1024 * 1024;
const NOTHING = Buffer.alloc(0);

export class TarBytes {
  readonly size: number;
  readonly #store: Store;
  readonly #object: ObjectInfo;
  #body: AsyncIterator<Uint8Array> | null = null;
  /** What has come and not been passed, and where it begins. */
  #chunk: Buffer = NOTHING;
  #at = 0;
  /** Where the window ends, and how long it is. */
  #end = 0;
  #window = 0;

  constructor(store: Store, object: ObjectInfo) {
    this.#store = store;
    this.#object = object;
    this.size = object.size;
  }

  /**
   * Up to `length` bytes at `offset`, fewer only at the object's end. Offsets never go back. Throws SOURCE_CHANGED where
   * the object is no longer the one given, and the store's errors.
   */
  async read(offset: number, length: number): Promise<Buffer> {
    const end = Math.min(offset + length, this.size);
    const pieces: Buffer[] = [];
    for (let at = offset; at < end; ) {
      await this.#seek(at);
      const piece = this.#chunk.subarray(at - this.#at, end - this.#at);
      pieces.push(piece);
      at += piece.length;
    }
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }

  /** Gives the connection back. */
  async close(): Promise<void> {
    const body = this.#body;
    this.#body = null;
    await body?.return?.();
  }

  /** Makes `#chunk` the one that holds `offset`. */
  async #seek(offset: number): Promise<void> {
    while (offset >= this.#at + this.#chunk.length) {
      this.#at += this.#chunk.length;
      this.#chunk = NOTHING;
      if (offset >= this.#end) {
        await this.#open(offset);
        continue;
      }
      const next = await this.#body!.next();
      // A store never gives less than it was asked for: without this, a faulty one would be asked for ever.
      if (next.done) throw new Error(`${this.#store.uriOf(this.#object.key)} ended at byte ${this.#at}`);
      this.#chunk = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength);
    }
  }

  /** Reads what is left of a window where it is little: a connection that is cut can't be used again. */
  async #finish(): Promise<void> {
    const body = this.#body;
    if (body && this.#end - this.#at <= FIRST_WINDOW) {
      while (!(await body.next()).done);
      this.#body = null;
    }
    await this.close();
  }

  async #open(offset: number): Promise<void> {
    const isLeap = this.#window === 0 || offset - this.#end > LEAP;
    await this.#finish();
    this.#window = isLeap ? FIRST_WINDOW : Math.min(this.#window * 2, LAST_WINDOW);
    const end = Math.min(offset + this.#window, this.size);
    const { key, etag } = this.#object;
    const { body } = await this.#store.stream(key, { range: { start: offset, end }, ifMatch: etag });
    this.#body = body[Symbol.asyncIterator]();
    this.#at = offset;
    this.#end = end;
  }
}

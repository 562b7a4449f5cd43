/** A body on its way into a store: counts its bytes, and tells its own failure from the store's. */
export class Source {
  size = 0;
  /** What the body threw, if it did. */
  failure: { error: unknown } | undefined;
  readonly #body: AsyncIterable<Uint8Array>;

  constructor(body: AsyncIterable<Uint8Array>) {
    this.#body = body;
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of this.#body) {
        this.size += chunk.byteLength;
        yield chunk;
      }
    } catch (error) {
      this.failure = { error };
      throw error;
    }
  }
}

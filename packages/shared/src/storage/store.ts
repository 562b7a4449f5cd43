/**
 * The one interface to object storage. A Store is a prefix; keys are relative to it, UTF-8, as they are (not
 * percent-encoded), without a leading slash.
 *
 * Every method throws CapfleetError: OBJECT_NOT_FOUND (a missing key), OBJECT_TOO_LARGE, STORE_ACCESS_DENIED,
 * STORE_CREDENTIALS, STORE_BUCKET_NOT_FOUND, STORE_UNAVAILABLE, and INVALID_URI for a key that the store can't hold.
 * Messages name the URI. A call whose `signal` is aborted throws the signal's reason; a `putStream` whose body throws
 * throws what the body threw.
 */
export interface Store {
  /** The prefix as a URI that ends with a slash: `s3://bucket/prefix/` or `file:///folder/`. */
  readonly uri: string;

  /** The URI of a key below the prefix. */
  uriOf(key: string): string;

  /** Null where there is no such object. */
  stat(key: string): Promise<ObjectInfo | null>;

  /** The whole object in memory. Stops with OBJECT_TOO_LARGE as soon as it is known to be over `maxBytes`. */
  read(key: string, options?: ReadOptions): Promise<{ bytes: Buffer; etag: string }>;

  /**
   * The object as a stream of chunks. `range` is in bytes, `end` exclusive and optional; a start at the object's end gives an
   * empty stream, one beyond it throws SOURCE_CHANGED. With `ifMatch`, an object that has changed throws SOURCE_CHANGED.
   * `size` is the whole object's, in bytes. The body holds a file or a connection open until it has been iterated, to its
   * end or to a `break`.
   */
  stream(
    key: string,
    options?: StreamOptions,
  ): Promise<{ body: AsyncIterable<Uint8Array>; size: number; etag: string }>;

  /**
   * Objects whose key starts with `prefix`, sorted by the bytes of their UTF-8 key, after `after` (exclusive). Pages are
   * fetched as the iteration goes; memory does not grow with the listing. Throws STORE_UNSORTED where the store's own
   * order is another. Folders and temporary files are not objects. A prefix that does not exist is empty.
   */
  list(options?: ListOptions): AsyncIterable<ObjectInfo>;

  /** Atomic: readers see the old object or the new one, whole. Returns the new ETag. */
  put(key: string, body: Uint8Array | string, options?: PutOptions): Promise<string>;

  /** Put if there is no such object (If-None-Match: *). Atomic among all writers. */
  putIfAbsent(key: string, body: Uint8Array | string): Promise<PutIfAbsentResult>;

  /** Put if the object is still the one with `etag` (If-Match). `changed` covers a deleted object too. */
  putIfMatch(key: string, body: Uint8Array | string, etag: string): Promise<PutIfMatchResult>;

  /** A body of unknown length in constant memory (multipart on S3); nothing is visible until it is whole. Returns its size. */
  putStream(key: string, body: AsyncIterable<Uint8Array>): Promise<number>;

  /** Deleting what is not there is no error. */
  delete(key: string): Promise<void>;
}

export interface ObjectInfo {
  key: string;
  size: number;
  etag: string;
}
export type PutIfAbsentResult = { outcome: "written"; etag: string } | { outcome: "exists" };
export type PutIfMatchResult = { outcome: "written"; etag: string } | { outcome: "changed" };
export interface ReadOptions {
  maxBytes?: number;
  signal?: AbortSignal;
}
export interface StreamOptions {
  range?: { start: number; end?: number };
  ifMatch?: string;
  signal?: AbortSignal;
}
export interface ListOptions {
  prefix?: string;
  after?: string;
}
export interface PutOptions {
  contentType?: string;
}

/**
 * A prefix of an S3 bucket as a store. Two things that S3 leaves to its clients:
 *
 * - A write whose answer is lost is sent again, by the SDK or by a proxy on the way, and then meets itself: 412. So conditional
 *   writes are marked with a UUID in the object's metadata, and a 412 is settled by a look at whose mark is there.
 * - Servers without conditional writes say so (501) at the first; from then on they get a HEAD and a plain PUT. Among writers
 *   at the same moment, the last one wins. Servers that ignore the headers silently are found by probe.ts.
 */
import { randomUUID } from "node:crypto";
import { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import type { GetObjectCommandInput, PutObjectCommandInput } from "@aws-sdk/client-s3";
import { CapfleetError } from "../contract/errors.ts";
import { checkKey } from "./key.ts";
import { bodyChunks } from "./s3-body.ts";
import type { S3Bucket } from "./s3-bucket.ts";
import { nameOf, s3Error, statusOf } from "./s3-error.ts";
import { listObjects, unquote } from "./s3-list.ts";
import { Source } from "./source.ts";
import type {
  ListOptions,
  ObjectInfo,
  PutIfAbsentResult,
  PutIfMatchResult,
  PutOptions,
  ReadOptions,
  Store,
  StreamOptions,
} from "./store.ts";

const MARK = "capfleet-write";
const MAX_KEY_BYTES = 1024;
/** One part at a time is in memory: the next is read from the body when the last has been taken. 10,000 parts at most: 80 GB. */
const PART_BYTES = 8 * 1024 * 1024;
/** The SDK repeats what fails before a body comes; a body that breaks off or stalls is read once more. */
const BODY_ATTEMPTS = 2;
/** Times that a write which the server called a conflict with another (409) is sent again. */
const CONFLICTS = 4;

export class S3Store implements Store {
  readonly uri: string;
  readonly #bucket: S3Bucket;
  readonly #prefix: string;

  /** `prefix` is empty or ends with a slash. */
  constructor(bucket: S3Bucket, prefix: string) {
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.uri = `s3://${bucket.name}/${prefix}`;
  }

  /** False once the server has said that it has no conditional writes. */
  get hasConditionalWrites(): boolean {
    return this.#bucket.hasConditionalWrites;
  }

  uriOf(key: string): string {
    return this.uri + key;
  }

  async stat(key: string): Promise<ObjectInfo | null> {
    const target = this.#target(key);
    try {
      const found = await this.#bucket.call((client) => client.headObject(target));
      return { key, size: found.ContentLength ?? 0, etag: unquote(found.ETag) };
    } catch (error) {
      const status = statusOf(error);
      if (status === 404) {
        await this.#bucket.check();
        return null;
      }
      if (status !== 400 && status !== 403) throw s3Error(error, this.uriOf(key));
    }
    // Answers to HEAD have no body that would say why. GET's have; its own body is not read.
    try {
      const { body, size, etag } = await this.#get(key, {});
      body.destroy();
      return { key, size, etag };
    } catch (error) {
      if (error instanceof CapfleetError && error.code === "OBJECT_NOT_FOUND") return null;
      throw error;
    }
  }

  async read(key: string, { maxBytes, signal }: ReadOptions = {}): Promise<{ bytes: Buffer; etag: string }> {
    for (let attempt = 1; ; attempt++) {
      const { body, length, etag } = await this.#get(key, {}, signal);
      const chunks = this.#chunks(key, body, length, signal);
      if (maxBytes !== undefined && length > maxBytes) {
        body.destroy();
        throw new CapfleetError(
          "OBJECT_TOO_LARGE",
          `${this.uriOf(key)}: ${length} bytes, and the limit is ${maxBytes}`,
        );
      }
      try {
        return { bytes: await collect(chunks, length), etag };
      } catch (error) {
        if (signal?.aborted || attempt === BODY_ATTEMPTS) throw error;
      }
    }
  }

  async stream(key: string, options: StreamOptions = {}): Promise<Streamed> {
    const { range, ifMatch, signal } = options;
    const isEmpty = range?.end !== undefined && range.end <= range.start;
    if (range !== undefined && isEmpty) return this.#emptyRange(key, range.start, ifMatch);

    const asked: Partial<GetObjectCommandInput> = {};
    if (range !== undefined && (range.start > 0 || range.end !== undefined))
      asked.Range = `bytes=${range.start}-${range.end === undefined ? "" : range.end - 1}`;
    if (ifMatch !== undefined) asked.IfMatch = `"${ifMatch}"`;
    try {
      const { body, length, size, etag } = await this.#get(key, asked, signal);
      return { body: this.#chunks(key, body, length, signal), size, etag };
    } catch (error) {
      // 416: nothing of the range is there.
      if (range === undefined || !(error instanceof CapfleetError) || statusOf(error.cause) !== 416) throw error;
      return this.#emptyRange(key, range.start, ifMatch);
    }
  }
  async *list(options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    yield* listObjects(this.#bucket, this.#prefix, options);
  }

  async put(key: string, body: Uint8Array | string, { contentType }: PutOptions = {}): Promise<string> {
    try {
      return await this.#put(key, body, contentType === undefined ? {} : { ContentType: contentType });
    } catch (error) {
      throw s3Error(error, this.uriOf(key));
    }
  }

  async putIfAbsent(key: string, body: Uint8Array | string): Promise<PutIfAbsentResult> {
    const etag = await this.#putIf(key, body, { IfNoneMatch: "*" });
    return etag === null ? { outcome: "exists" } : { outcome: "written", etag };
  }

  async putIfMatch(key: string, body: Uint8Array | string, expected: string): Promise<PutIfMatchResult> {
    const etag = await this.#putIf(key, body, { IfMatch: expected });
    return etag === null ? { outcome: "changed" } : { outcome: "written", etag };
  }

  async putStream(key: string, body: AsyncIterable<Uint8Array>): Promise<number> {
    const target = this.#target(key);
    await this.#bucket.check(); // a redirect to another region must come before the body is read
    const source = new Source(body);
    const { Upload } = await import("@aws-sdk/lib-storage");
    try {
      // One part at a time: with more, the SDK goes on reading the body after one has failed.
      const params = { ...target, Body: Readable.from(source.chunks(), { objectMode: false }) };
      await this.#bucket.call((client) => new Upload({ client, params, partSize: PART_BYTES, queueSize: 1 }).done());
    } catch (error) {
      throw source.failure ? source.failure.error : s3Error(error, this.uriOf(key));
    }
    return source.size;
  }

  async delete(key: string): Promise<void> {
    const target = this.#target(key);
    try {
      await this.#bucket.call((client) => client.deleteObject(target));
    } catch (error) {
      if (nameOf(error) !== "NoSuchKey") throw s3Error(error, this.uriOf(key));
    }
  }

  async #get(key: string, asked: Partial<GetObjectCommandInput>, signal?: AbortSignal): Promise<Got> {
    const target = { ...this.#target(key), ...asked };
    try {
      const got = await this.#bucket.call((client) => client.getObject(target, signal && { abortSignal: signal }));
      const body = got.Body as Readable;
      const size = asked.Range === undefined ? got.ContentLength : Number(/\/(\d+)$/.exec(got.ContentRange ?? "")?.[1]);
      if (got.ContentLength !== undefined && size !== undefined && !Number.isNaN(size))
        return { body, length: got.ContentLength, size, etag: unquote(got.ETag) };
      body.destroy();
    } catch (error) {
      throw signal?.aborted ? signal.reason : s3Error(error, this.uriOf(key));
    }
    const missing = asked.Range === undefined ? "its length" : `the range that was asked for, ${asked.Range}`;
    throw new CapfleetError("STORE_UNAVAILABLE", `${this.uriOf(key)}: the store answered without ${missing}`);
  }

  #chunks(key: string, body: Readable, length: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    return bodyChunks(body, { uri: this.uriOf(key), length, stallMs: this.#bucket.timeoutMs, signal });
  }

  /** S3 can't be asked for a range without bytes. */
  async #emptyRange(key: string, start: number, ifMatch?: string): Promise<Streamed> {
    const found = await this.stat(key);
    const uri = this.uriOf(key);
    if (found === null) throw new CapfleetError("OBJECT_NOT_FOUND", `${uri}: no such object`);
    if (ifMatch !== undefined && ifMatch !== found.etag)
      throw new CapfleetError("SOURCE_CHANGED", `${uri} has changed`);
    if (start > found.size)
      throw new CapfleetError("SOURCE_CHANGED", `${uri} has ${found.size} bytes, and the range starts at ${start}`);
    return { body: Readable.from([]), size: found.size, etag: found.etag };
  }

  async #put(key: string, body: Uint8Array | string, extra: Partial<PutObjectCommandInput>): Promise<string> {
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    const object = { ...this.#target(key), ...extra, Body: bytes, ContentLength: bytes.byteLength };
    return unquote((await this.#bucket.call((client) => client.putObject(object))).ETag);
  }

  /** Null where the condition does not hold. `IfMatch` is a bare ETag. */
  async #putIf(
    key: string,
    body: Uint8Array | string,
    condition: { IfNoneMatch: string } | { IfMatch: string },
  ): Promise<string | null> {
    const expected = "IfMatch" in condition ? condition.IfMatch : undefined;
    const mark = randomUUID();
    for (let conflicts = 0; ; ) {
      if (!this.#bucket.hasConditionalWrites) {
        const found = await this.stat(key);
        return found?.etag === expected ? this.put(key, body) : null;
      }
      const isQuoted = this.#bucket.unquotesIfMatch;
      const header = expected !== undefined && isQuoted ? { IfMatch: `"${expected}"` } : condition;
      try {
        return await this.#put(key, body, { ...header, Metadata: { [MARK]: mark } });
      } catch (error) {
        const status = statusOf(error);
        const isGone = status === 404 && nameOf(error) !== "NoSuchBucket" && expected !== undefined;
        if (status === 412 && isQuoted && expected !== undefined && (await this.stat(key))?.etag === expected)
          this.#bucket.unquotesIfMatch = false;
        else if (status === 412 || isGone) return this.#etagIfMarked(key, mark);
        else if (status === 501 || nameOf(error) === "NotImplemented") this.#bucket.hasConditionalWrites = false;
        else if (status !== 409 || ++conflicts > CONFLICTS) throw s3Error(error, this.uriOf(key));
        else await delay(2 ** conflicts * 25 * (1 + Math.random()));
      }
    }
  }

  async #etagIfMarked(key: string, mark: string): Promise<string | null> {
    try {
      const found = await this.#bucket.call((client) => client.headObject(this.#target(key)));
      return found.Metadata?.[MARK] === mark ? unquote(found.ETag) : null;
    } catch (error) {
      if (statusOf(error) === 404) return null;
      throw s3Error(error, this.uriOf(key));
    }
  }

  #target(key: string): { Bucket: string; Key: string } {
    checkKey(key, this.uriOf(key));
    const Key = this.#prefix + key;
    if (Buffer.byteLength(Key) > MAX_KEY_BYTES)
      throw new CapfleetError("INVALID_URI", `${this.uriOf(key)}: the key has more than ${MAX_KEY_BYTES} bytes`);
    return { Bucket: this.#bucket.name, Key };
  }
}

interface Got {
  body: Readable;
  /** Bytes in this answer; `size` is the whole object's. */
  length: number;
  size: number;
  etag: string;
}
type Streamed = Awaited<ReturnType<Store["stream"]>>;

async function collect(chunks: AsyncIterable<Uint8Array>, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  let at = 0;
  for await (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  return bytes;
}

/**
 * A folder of a local (or mounted) file system as a store; keys are paths below it. Links are followed. How a write is
 * atomic, and what a crash can cost: file-replace.ts.
 */
import { constants } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { CapfleetError } from "../contract/errors.ts";
import { isAbsent, readError, writeError } from "./file-error.ts";
import { listFiles } from "./file-list.ts";
import { etagOf, isTemporary, removeAny, replaceAny, replaceVersion, writeTemporary } from "./file-replace.ts";
import { checkKey } from "./key.ts";
import { Source } from "./source.ts";
import type {
  ListOptions,
  ObjectInfo,
  PutIfAbsentResult,
  PutIfMatchResult,
  ReadOptions,
  Store,
  StreamOptions,
} from "./store.ts";
import { asFolder } from "./uri.ts";

const CHUNK = 128 * 1024;
/** Node reads no larger file at once. */
const MAX_READ = 2 ** 31 - 1;

export class FileStore implements Store {
  readonly uri: string;
  /** Ends with a slash. */
  readonly #root: string;

  /** `folder` is an absolute path. It need not exist: then it is empty, and the first write creates it. */
  constructor(folder: string) {
    this.#root = asFolder(folder);
    this.uri = pathToFileURL(this.#root).href;
  }

  uriOf(key: string): string {
    return pathToFileURL(this.#root + key).href;
  }

  async stat(key: string): Promise<ObjectInfo | null> {
    const path = this.#pathOf(key);
    try {
      const status = await stat(path, { bigint: true });
      return status.isFile() ? { key, size: Number(status.size), etag: etagOf(status) } : null;
    } catch (error) {
      if (isAbsent(error)) return null;
      throw readError(error, this.uriOf(key));
    }
  }

  async read(key: string, { maxBytes = MAX_READ, signal }: ReadOptions = {}): Promise<{ bytes: Buffer; etag: string }> {
    const { file, size, etag } = await this.#open(key);
    try {
      const limit = Math.min(maxBytes, MAX_READ);
      if (size > limit)
        throw new CapfleetError("OBJECT_TOO_LARGE", `${this.uriOf(key)}: ${size} bytes, and the limit is ${limit}`);
      return { bytes: await file.readFile(signal && { signal }), etag };
    } catch (error) {
      throw signal?.aborted ? signal.reason : readError(error, this.uriOf(key));
    } finally {
      await file.close();
    }
  }

  async stream(
    key: string,
    options: StreamOptions = {},
  ): Promise<{ body: AsyncIterable<Uint8Array>; size: number; etag: string }> {
    const { file, size, etag } = await this.#open(key);
    const { start, end = size } = options.range ?? { start: 0 };
    const hasChanged = options.ifMatch !== undefined && options.ifMatch !== etag;
    if (hasChanged || start > size) {
      await file.close();
      const what = hasChanged ? "has changed" : `has ${size} bytes, and the range starts at ${start}`;
      throw new CapfleetError("SOURCE_CHANGED", `${this.uriOf(key)} ${what}`);
    }
    return { body: this.#chunks(file, key, start, Math.min(end, size), options.signal), size, etag };
  }

  async *list(options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    yield* listFiles(this.#root, options);
  }

  async put(key: string, body: Uint8Array | string): Promise<string> {
    return this.#write(key, body, replaceAny);
  }

  async putIfAbsent(key: string, body: Uint8Array | string): Promise<PutIfAbsentResult> {
    const etag = await this.#write(key, body, (temporary, path) => replaceVersion(temporary, path, null));
    return etag === null ? { outcome: "exists" } : { outcome: "written", etag };
  }

  async putIfMatch(key: string, body: Uint8Array | string, expected: string): Promise<PutIfMatchResult> {
    const etag = await this.#write(key, body, (temporary, path) => replaceVersion(temporary, path, expected));
    return etag === null ? { outcome: "changed" } : { outcome: "written", etag };
  }

  async putStream(key: string, body: AsyncIterable<Uint8Array>): Promise<number> {
    const source = new Source(body);
    try {
      await this.#write(key, source.chunks(), replaceAny);
    } catch (error) {
      throw source.failure ? source.failure.error : error;
    }
    return source.size;
  }

  async delete(key: string): Promise<void> {
    const path = this.#pathOf(key);
    try {
      await removeAny(path);
    } catch (error) {
      if (!isAbsent(error)) throw writeError(error, this.uriOf(key));
    }
  }

  async #write<T>(
    key: string,
    body: Uint8Array | string | AsyncIterable<Uint8Array>,
    place: (temporary: string, path: string) => Promise<T>,
  ): Promise<T> {
    const path = this.#pathOf(key);
    try {
      return await place(await writeTemporary(path, (file) => file.writeFile(body)), path);
    } catch (error) {
      throw writeError(error, this.uriOf(key));
    }
  }

  async #open(key: string): Promise<{ file: FileHandle; size: number; etag: string }> {
    const path = this.#pathOf(key);
    try {
      // O_NONBLOCK: opening a named pipe would otherwise wait for a writer.
      const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
      const status = await file.stat({ bigint: true });
      if (status.isFile()) return { file, size: Number(status.size), etag: etagOf(status) };
      await file.close();
    } catch (error) {
      throw readError(error, this.uriOf(key));
    }
    throw new CapfleetError("OBJECT_NOT_FOUND", `${this.uriOf(key)}: not a file`);
  }

  async *#chunks(
    file: FileHandle,
    key: string,
    start: number,
    end: number,
    signal?: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    try {
      for (let at = start; at < end; ) {
        signal?.throwIfAborted();
        const buffer = Buffer.allocUnsafe(Math.min(CHUNK, end - at));
        const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
        if (bytesRead === 0)
          throw new CapfleetError("SOURCE_CHANGED", `${this.uriOf(key)} was cut to ${at} bytes while it was read`);
        at += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    } catch (error) {
      throw readError(error, this.uriOf(key));
    } finally {
      await file.close();
    }
  }

  /** Refuses keys that have no place below the folder, or more than one name for the same place. */
  #pathOf(key: string): string {
    checkKey(key, `${this.uri}${key}`);
    for (const part of key.split("/")) {
      if (part === "" || part === "." || part === ".." || isTemporary(part))
        throw new CapfleetError("INVALID_URI", `${this.uri}${key}: the key has the part ${JSON.stringify(part)}`);
    }
    return join(this.#root, key);
  }
}

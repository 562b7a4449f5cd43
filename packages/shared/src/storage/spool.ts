/**
 * Bytes that must wait and may be too many for memory: a file that has no name, so that however the process ends nothing
 * is left of it. It lies in the system's folder for temporary files (TMPDIR).
 */
import { randomUUID } from "node:crypto";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeError } from "./file-error.ts";

const CHUNK = 128 * 1024;

export interface Spooled {
  offset: number;
  size: number;
}

export class Spool {
  readonly #file: FileHandle;
  #end = 0;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /** Throws STORE_ACCESS_DENIED or STORE_UNAVAILABLE, as `append` does: a full disk may have room again later. */
  static async open(): Promise<Spool> {
    const path = join(tmpdir(), `.capfleet-spool-${randomUUID()}`);
    try {
      const file = await open(path, "wx+", 0o600);
      // A process that dies before this line leaves an empty file, after it none.
      await unlink(path);
      return new Spool(file);
    } catch (error) {
      throw writeError(error, path);
    }
  }

  /** In bytes. */
  get size(): number {
    return this.#end;
  }

  /** May be called again before it has ended. Returns where the bytes are. */
  async append(bytes: Uint8Array): Promise<Spooled> {
    const place = { offset: this.#end, size: bytes.length };
    this.#end += bytes.length;
    try {
      for (let at = 0; at < bytes.length; ) {
        at += (await this.#file.write(bytes, at, bytes.length - at, place.offset + at)).bytesWritten;
      }
    } catch (error) {
      throw writeError(error, `a temporary file in ${tmpdir()}`);
    }
    return place;
  }

  async read({ offset, size }: Spooled): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(size);
    for (let at = 0; at < size; ) {
      const { bytesRead } = await this.#file.read(bytes, at, size - at, offset + at);
      if (bytesRead === 0) throw new Error(`a temporary file ends at ${offset + at}`);
      at += bytesRead;
    }
    return bytes;
  }

  /** Everything, from the start. */
  async *chunks(): AsyncGenerator<Uint8Array> {
    for (let offset = 0; offset < this.#end; offset += CHUNK) {
      yield await this.read({ offset, size: Math.min(CHUNK, this.#end - offset) });
    }
  }

  /** Its space is free again. */
  async close(): Promise<void> {
    await this.#file.close();
  }
}

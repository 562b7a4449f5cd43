/// <reference lib="esnext.float16" />
/** Reads tensors' numbers, a few MB at a time, from however many files a checkpoint has. */
import type { FileHandle } from "node:fs/promises";
import { openFile, readFully, versionOf } from "./file.ts";
import { type Checkpoint, type FileVersion, FLOATS, type FloatFormat, type FloatTensor, invalid } from "./tensor.ts";

/** Bytes that are read at a time. */
const CHUNK = 1 << 22;

/** A checkpoint's files, one of which is open at a time: neighbouring tensors mostly are in the same one. */
export class CheckpointReader {
  readonly #checkpoint: Checkpoint;
  #open: { path: string; handle: FileHandle } | null = null;

  constructor(checkpoint: Checkpoint) {
    this.#checkpoint = checkpoint;
  }

  /**
   * A tensor's numbers as float32, in order; an array is valid until the next one is asked for. All but the last have
   * 4 MB of the tensor's own format. One tensor at a time. Throws MODEL_INVALID, naming the file: it is gone, or was
   * written to since its header was read.
   */
  async *floats(tensor: FloatTensor): AsyncGenerator<Float32Array<ArrayBuffer>> {
    const { file, dtype, begin, end } = tensor;
    const handle = await this.#handle(file);
    const buffer = new Uint8Array(Math.min(CHUNK, end - begin));
    for (let at = begin; at < end; at += buffer.length) {
      const chunk = buffer.subarray(0, Math.min(buffer.length, end - at));
      await readFully(handle, file, chunk, at);
      // After the read, so that what is handed out was there before any change.
      this.#check(file, await versionOf(handle));
      yield toFloats(chunk, dtype);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const open = this.#open;
    this.#open = null;
    await open?.handle.close();
  }

  async #handle(path: string): Promise<FileHandle> {
    if (this.#open?.path === path) return this.#open.handle;
    await this[Symbol.asyncDispose]();
    const opened = (await openFile(path)) ?? invalid(path, "was there a moment ago and is gone");
    this.#open = { path, handle: opened.handle };
    this.#check(path, opened.version);
    return opened.handle;
  }

  #check(path: string, now: FileVersion): void {
    const then = this.#checkpoint.files.get(path)!;
    if (now.size === then.size && now.modified === then.modified) return;
    const size = now.size === then.size ? `its ${now.size} bytes` : `${then.size} bytes then, ${now.size} now`;
    invalid(path, `has changed while it was being read (${size}); begin again when it is complete`);
  }
}

function toFloats({ buffer, byteLength }: Uint8Array<ArrayBuffer>, format: FloatFormat): Float32Array<ArrayBuffer> {
  const length = byteLength / FLOATS[format];
  if (format === "F32") return new Float32Array(buffer, 0, length);
  if (format === "F16") return new Float32Array(new Float16Array(buffer, 0, length));
  // A bfloat16 is a float32's upper half.
  const halves = new Uint16Array(buffer, 0, length);
  const bits = new Uint32Array(length);
  for (let i = 0; i < length; i++) bits[i] = halves[i]! << 16;
  return new Float32Array(bits.buffer);
}

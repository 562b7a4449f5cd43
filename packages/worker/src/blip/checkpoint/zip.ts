/** Where the files of a zip archive are, such as torch.save makes them: stored as they are, so that each is a range. */
import type { FileHandle } from "node:fs/promises";
import { fromRandomAccessReaderPromise, RandomAccessReader } from "yauzl";
import { invalid, unsupported } from "./tensor.ts";

/** A large model has some thousand tensors. */
const MAX_ENTRIES = 100_000;
const MAX_NAME = 1_000;

/** The bytes [begin, end) of the archive. */
export interface ZipRange {
  begin: number;
  end: number;
}

/** By the names in the archive. Throws MODEL_INVALID: damaged; MODEL_UNSUPPORTED: compressed or encrypted. */
export async function readZip(handle: FileHandle, path: string, size: number): Promise<Map<string, ZipRange>> {
  const ranges = new Map<string, ZipRange>();
  for (const { name, plain, ...range } of await readEntries(handle, path, size)) {
    if (!plain) unsupported(path, `has ${name} compressed or encrypted, which torch.save does not do: save it again`);
    if (ranges.has(name)) invalid(path, `has two files ${name}`);
    ranges.set(name, range);
  }
  return ranges;
}

async function readEntries(handle: FileHandle, path: string, size: number) {
  const entries: (ZipRange & { name: string; plain: boolean })[] = [];
  try {
    // Names are UTF-8 and go nowhere, so that yauzl need not judge them.
    const options = { autoClose: false, decodeStrings: false };
    const zip = await fromRandomAccessReaderPromise(new Reader(handle, size), size, options);
    if (zip.entryCount > MAX_ENTRIES) throw new Error(`${zip.entryCount} files, at most ${MAX_ENTRIES} are read`);
    for await (const entry of zip.eachEntry()) {
      const { fileNameLength, fileNameRaw, compressedSize, compressionMethod } = entry;
      if (fileNameLength > MAX_NAME) throw new Error(`a file name of ${fileNameLength} bytes`);
      const { fileDataStart: begin } = await zip.readLocalFileHeaderPromise(entry, { minimal: true });
      const plain = compressionMethod === 0 && !entry.isEncrypted();
      entries.push({ name: fileNameRaw.toString("utf8"), plain, begin, end: begin + compressedSize });
    }
  } catch (cause) {
    invalid(path, `is a damaged zip archive, or is cut off: ${(cause as Error).message}`, cause);
  }
  return entries;
}

/** yauzl's own reader throws at positions beyond 2^53, where nothing can catch it. */
class Reader extends RandomAccessReader {
  readonly #handle: FileHandle;
  readonly #size: number;

  constructor(handle: FileHandle, size: number) {
    super();
    this.#handle = handle;
    this.#size = size;
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null, bytesRead?: number) => void,
  ): void {
    if (position + length > this.#size) {
      callback(new Error(`it refers to byte ${position + length}, and has ${this.#size}`));
      return;
    }
    this.#handle.read(buffer, offset, length, position).then(
      ({ bytesRead }) => callback(null, bytesRead),
      (error: Error) => callback(error),
    );
  }
}

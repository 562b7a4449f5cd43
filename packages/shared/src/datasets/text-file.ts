/** A manifest of text: its lines with their numbers, and cursors between them. */
import { CapfleetError } from "../contract/errors.ts";
import type { Cursor } from "../contract/record.ts";
import { type Line, splitLines } from "./lines.ts";
import { FileBroken, type ManifestFile } from "./row.ts";

export const MAX_LINE_BYTES = 1024 * 1024;
export const TOO_LONG = `longer than ${MAX_LINE_BYTES} bytes`;
/** Enough to tell what a file is. */
const HEAD_BYTES = 512;

export interface TextLine extends Line {
  /** From 1. */
  number: number;
  /** Offset in bytes of the line's first. */
  start: number;
}
export type TextCursor = Extract<Cursor, { source: "manifest" }>;

/** Where the file goes on after a line. */
export function cursorAfter({ object: { key, etag } }: ManifestFile, { end, number }: TextLine): TextCursor {
  return { source: "manifest", file: key, offset: end, line: number + 1, etag };
}

/** Nothing is left of the file. */
export function brokenText({ object: { key, size, etag } }: ManifestFile, message: string): FileBroken {
  return new FileBroken(message, { source: "manifest", file: key, offset: size, line: 1, etag });
}

/**
 * The lines after `from` (null: all), those of a chunk together. Throws FileBroken for a file that is not text in UTF-8,
 * SOURCE_CHANGED where the file is another one when its end is reached, and the store's errors.
 */
export async function* readLines(file: ManifestFile, from: TextCursor | null): AsyncGenerator<TextLine[]> {
  const { store, object } = file;
  const { key, etag } = object;
  const options = from ? { range: { start: from.offset }, ifMatch: etag } : { ifMatch: etag };
  const { body } = await store.stream(key, options);
  const base = from?.offset ?? 0;
  let start = base;
  let number = from?.line ?? 1;
  for await (const lines of splitLines(from ? body : recognized(file, body), MAX_LINE_BYTES)) {
    const numbered = lines.map((line) => {
      const text = start === 0 && line.text?.startsWith("\uFEFF") ? line.text.slice(1) : line.text;
      const end = base + line.end;
      const here = { ...line, text, number, start, end };
      number += 1;
      start = end;
      return here;
    });
    yield numbered;
  }
  // A file of a folder can be changed in place while it is read; no object of a bucket can.
  if ((await store.stat(key))?.etag !== etag) throw new CapfleetError("SOURCE_CHANGED", `${file.uri} has changed`);
}

/** The same chunks, once the first are known to be text. */
async function* recognized(file: ManifestFile, body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let held: Uint8Array[] | null = [];
  let bytes = 0;
  const release = function* () {
    const problem = whyNoText(Buffer.concat(held!));
    if (problem !== null) throw brokenText(file, problem);
    yield* held!;
    held = null;
  };
  for await (const chunk of body) {
    if (held === null) {
      yield chunk;
      continue;
    }
    // A copy: the stream may use its chunk again.
    held.push(Buffer.from(chunk));
    bytes += chunk.length;
    if (bytes >= HEAD_BYTES) yield* release();
  }
  if (held !== null) yield* release();
}

const SIGNATURES: [hex: string, what: string][] = [
  ["1f8b", "it is compressed with gzip; unpack it first"],
  ["28b52ffd", "it is compressed with zstd; unpack it first"],
  ["425a68", "it is compressed with bzip2; unpack it first"],
  ["fd377a585a00", "it is compressed with xz; unpack it first"],
  ["504b0304", "it is a zip archive (or an Excel file)"],
  ["50415231", "it is a Parquet file; its name should end in .parquet"],
  ["fffe", "its text is UTF-16; save it as UTF-8"],
  ["feff", "its text is UTF-16; save it as UTF-8"],
];

function whyNoText(head: Buffer): string | null {
  const hex = head.toString("hex", 0, 8);
  const signature = SIGNATURES.find(([start]) => hex.startsWith(start));
  if (signature) return signature[1];
  const looked = head.subarray(0, HEAD_BYTES);
  const zeros = looked.filter((byte) => byte === 0).length;
  if (zeros === 0) return null;
  return zeros > looked.length / 4 ? "its text is UTF-16; save it as UTF-8" : "it holds zero bytes: it is no text";
}

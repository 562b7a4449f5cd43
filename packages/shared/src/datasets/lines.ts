/** Splits a stream of bytes into lines, with the offset at which each ends. One line at most is held. */

export interface Line {
  /** Without its line end; null where the line is longer than the limit (its bytes are skipped). */
  text: string | null;
  /** Offset in bytes, from the start of the stream, of what follows the line. */
  end: number;
}

const NEWLINE = 10;
const CARRIAGE_RETURN = 13;

/** Yields the lines of each chunk together; the last line needs no newline. */
export async function* splitLines(body: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<Line[]> {
  let rest: Buffer[] = [];
  let restBytes = 0;
  let offset = 0;

  const finish = (tail: Buffer): string | null => {
    const length = restBytes + tail.length;
    const whole = rest.length === 0 ? tail : Buffer.concat([...rest, tail]);
    rest = [];
    restBytes = 0;
    if (length > maxBytes) return null;
    const end = whole.at(-1) === CARRIAGE_RETURN ? whole.length - 1 : whole.length;
    return whole.toString("utf8", 0, end);
  };

  for await (const piece of body) {
    const chunk = Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
    const lines: Line[] = [];
    let start = 0;
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, start)) {
      const text = finish(chunk.subarray(start, at));
      start = at + 1;
      lines.push({ text, end: offset + start });
    }
    restBytes += chunk.length - start;
    // Past the limit the bytes are counted, not kept. A copy: the stream may use its chunk again.
    if (restBytes <= maxBytes) rest.push(Buffer.from(chunk.subarray(start)));
    else rest = [];
    offset += chunk.length;
    if (lines.length > 0) yield lines;
  }
  if (restBytes > 0) yield [{ text: finish(Buffer.alloc(0)), end: offset }];
}

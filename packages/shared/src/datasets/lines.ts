/** Splits a stream of bytes into lines, with the offset at which each ends. One line at most is held. */

export interface Line {
  /** Without its line end; null where the line is longer than the limit (its bytes are skipped). */
  text: string | null;
  /** What ended it; empty at the end of the stream. */
  newline: "" | "\n" | "\r\n";
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

  const finish = (tail: Buffer, ending: "" | "\n"): Omit<Line, "end"> => {
    const length = restBytes + tail.length;
    const whole = rest.length === 0 ? tail : Buffer.concat([...rest, tail]);
    rest = [];
    restBytes = 0;
    if (length > maxBytes) return { text: null, newline: ending };
    const hasReturn = whole.at(-1) === CARRIAGE_RETURN;
    const text = whole.toString("utf8", 0, hasReturn ? whole.length - 1 : whole.length);
    return { text, newline: hasReturn && ending !== "" ? "\r\n" : ending };
  };

  for await (const piece of body) {
    const chunk = Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
    const lines: Line[] = [];
    let start = 0;
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, start)) {
      const line = finish(chunk.subarray(start, at), "\n");
      start = at + 1;
      lines.push({ ...line, end: offset + start });
    }
    restBytes += chunk.length - start;
    // Past the limit the bytes are counted, not kept. A copy: the stream may use its chunk again.
    if (restBytes <= maxBytes) rest.push(Buffer.from(chunk.subarray(start)));
    else rest = [];
    offset += chunk.length;
    if (lines.length > 0) yield lines;
  }
  if (restBytes > 0) yield [{ ...finish(Buffer.alloc(0), ""), end: offset }];
}

/**
 * Lines put together to the records of a CSV file, as RFC 4180 has them: a field may be quoted, and then hold delimiters,
 * line ends and, doubled, quotes. A quote elsewhere in a field is a character like any other. Where quotes are broken, or a
 * record does not end within 1 MiB, only the line where it began is given up: the next line begins a record again.
 */
import { MAX_LINE_BYTES, type TextLine, TOO_LONG } from "./text-file.ts";

export interface CsvRecord {
  /** Or what is wrong with it. */
  fields: string[] | string;
  /** Its first line, and the last one: the cursor is behind that. */
  first: TextLine;
  last: TextLine;
}

export async function* csvRecords(chunks: AsyncIterable<TextLine[]>, delimiter: string): AsyncGenerator<CsvRecord[]> {
  const assembly = new Assembly(delimiter);
  for await (const lines of chunks) {
    const records = assembly.add(lines);
    if (records.length > 0) yield records;
  }
  for (;;) {
    const records = assembly.giveUp("a quote is opened and never closed");
    if (records.length === 0) return;
    yield records;
  }
}

/** The record that is being put together, across chunks. */
class Assembly {
  readonly #delimiter: string;
  /** Lines of a record whose quote is open. */
  #lines: TextLine[] = [];
  #fields: string[] = [];
  /** What has come of the quoted field. */
  #open = "";

  constructor(delimiter: string) {
    this.#delimiter = delimiter;
  }

  add(lines: TextLine[]): CsvRecord[] {
    const records: CsvRecord[] = [];
    let left = lines;
    for (let at = 0; at < left.length; ) {
      const line = left[at]!;
      at += 1;
      if (this.#lines.length === 0 && this.#isBlank(line)) continue;
      this.#lines.push(line);
      const problem = this.#take(line);
      const [first] = this.#lines as [TextLine];
      if (problem === "open") continue;
      if (problem === null) {
        records.push({ fields: this.#fields, first, last: line });
      } else {
        records.push({ fields: problem, first, last: first });
        // Its further lines are looked at again, whether they came just now or with lines before.
        const again = this.#lines.length - 1;
        if (again > at) left = this.#lines.slice(1).concat(left.slice(at));
        at = Math.max(0, at - again);
      }
      this.#reset();
    }
    return records;
  }

  /** No line follows: the record that is open is broken, and its further lines are looked at again. */
  giveUp(problem: string): CsvRecord[] {
    const [first, ...rest] = this.#lines;
    if (!first) return [];
    this.#reset();
    return [{ fields: problem, first, last: first }, ...this.add(rest)];
  }

  #reset(): void {
    this.#lines = [];
    this.#fields = [];
    this.#open = "";
  }

  #isBlank({ text }: TextLine): boolean {
    return text !== null && text.trim() === "" && !text.includes(this.#delimiter);
  }

  /** Null where the record ends with the line, "open" where it goes on, otherwise what is wrong. */
  #take(line: TextLine): string | null {
    const { text, newline } = line;
    const isContinued = this.#lines.length > 1;
    if (text === null || line.end - this.#lines[0]!.start > MAX_LINE_BYTES) {
      return isContinued ? `a quote is opened, and its record is ${TOO_LONG}` : TOO_LONG;
    }
    if (!isContinued && !text.includes('"')) {
      this.#fields = text.split(this.#delimiter);
      return null;
    }
    let at = 0;
    let isQuoted = isContinued;
    for (;;) {
      if (!isQuoted && text[at] !== '"') {
        const end = text.indexOf(this.#delimiter, at);
        this.#fields.push(text.slice(at, end < 0 ? undefined : end));
        if (end < 0) return null;
        at = end + 1;
        continue;
      }
      at = this.#takeQuoted(text, isQuoted ? at : at + 1);
      isQuoted = false;
      if (at < 0) {
        this.#open += newline;
        return "open";
      }
      this.#fields.push(this.#open);
      this.#open = "";
      if (at === text.length) return null;
      if (text[at] !== this.#delimiter) return `text follows the quote that ends field ${this.#fields.length}`;
      at += 1;
    }
  }

  /** Adds to `#open` from `from` to the quote that closes it. Where the text goes on behind it; -1 if it is not closed. */
  #takeQuoted(text: string, from: number): number {
    for (let at = from; ; ) {
      const quote = text.indexOf('"', at);
      this.#open += text.slice(at, quote < 0 ? undefined : quote);
      if (quote < 0) return -1;
      if (text[quote + 1] !== '"') return quote + 1;
      this.#open += '"';
      at = quote + 2;
    }
  }
}

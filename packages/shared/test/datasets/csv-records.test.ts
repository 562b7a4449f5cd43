import { parse } from "csv-parse/sync";
import { describe, expect, test } from "vitest";
import { csvRecords } from "../../src/datasets/csv-records.ts";
import { splitLines } from "../../src/datasets/lines.ts";
import { MAX_LINE_BYTES, type TextLine } from "../../src/datasets/text-file.ts";

async function* linesOf(text: string, chunkBytes: number): AsyncGenerator<TextLine[]> {
  const bytes = Buffer.from(text);
  const chunks = async function* () {
    for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
  };
  let [number, start] = [1, 0];
  for await (const lines of splitLines(chunks(), MAX_LINE_BYTES)) {
    yield lines.map((line) => {
      const here = { ...line, number, start };
      number += 1;
      start = line.end;
      return here;
    });
  }
}

async function read(text: string, delimiter = ",", chunkBytes = 7) {
  const records = [];
  for await (const some of csvRecords(linesOf(text, chunkBytes), delimiter)) records.push(...some);
  return records;
}
const fieldsOf = async (text: string, delimiter?: string) => (await read(text, delimiter)).map(({ fields }) => fields);

/** The same numbers each time (mulberry32). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

describe.each([",", "\t"])("valid files, delimiter %j", (delimiter) => {
  test.each(Array.from({ length: 40 }, (_, seed) => seed))("csv-parse says the same of file %i", async (seed) => {
    const below = random(seed);
    const pick = <T>(list: readonly T[]): T => list[below(list.length)]!;
    const ALPHABET = ["a", "ü", "😀", " ", delimiter, '"', "\n", "\r\n", ";", "\\", "'"];
    const field = () => {
      const value = Array.from({ length: below(6) }, () => pick(ALPHABET)).join("");
      const isPlain = !/["\r\n]/.test(value) && !value.includes(delimiter) && value.trim() !== "" && below(2) === 0;
      return isPlain ? value : `"${value.replaceAll('"', '""')}"`;
    };
    const width = 1 + below(5);
    const newline = pick(["\n", "\r\n"]);
    const rows = Array.from({ length: 30 }, () => Array.from({ length: width }, field).join(delimiter));
    const text = rows.join(newline) + pick(["", newline]);
    const theirs = parse(text, { delimiter, record_delimiter: newline });
    for (const chunk of [1, 5, 64, 100_000]) {
      const ours = await read(text, delimiter, chunk);
      expect(ours.map(({ fields }) => fields)).toEqual(theirs);
      expect(ours.at(-1)!.last.end).toBe(Buffer.byteLength(text));
    }
  });
});

test("a quote within a field that does not begin with one, empty fields, blank lines", async () => {
  expect(await fieldsOf('a 5" pipe,b\n\n,\n  \n"",x"y"')).toEqual([
    ['a 5" pipe', "b"],
    ["", ""],
    ["", 'x"y"'],
  ]);
  expect(await fieldsOf("\t\na\t", "\t")).toEqual([
    ["", ""],
    ["a", ""],
  ]);
});

describe("broken quotes cost the line where the record began, and no other", () => {
  test("one that is never closed", async () => {
    expect(await fieldsOf('a,b\n"c,d\ne,f\ng,h')).toEqual([
      ["a", "b"],
      "a quote is opened and never closed",
      ["e", "f"],
      ["g", "h"],
    ]);
  });

  test("text behind the quote that closes a field, at once or lines later", async () => {
    expect(await fieldsOf('"a"b,c\nd,e\nf,"g\nh,"i"\n"j",k')).toEqual([
      "text follows the quote that ends field 1",
      ["d", "e"],
      "text follows the quote that ends field 2",
      ["h", "i"],
      ["j", "k"],
    ]);
  });

  test("one that swallows more than 1 MiB, in lines and in one line", async () => {
    const lines = `${"x".repeat(1_022)},\n`.repeat(2_000);
    const records = await read(`"a,b\n${lines}`, ",", 65_536);
    expect(records).toHaveLength(2_001);
    expect(records[0]!.fields).toBe("a quote is opened, and its record is longer than 1048576 bytes");
    expect(records[0]).toMatchObject({ first: { number: 1 }, last: { number: 1 } });
    expect(records.slice(1).every(({ fields }) => fields.length === 2)).toBe(true);

    const long = await read(`"a,b\n${"x".repeat(MAX_LINE_BYTES + 1)}\nc,d`, ",", 65_536);
    expect(long.map(({ fields }) => fields)).toEqual([
      "a quote is opened, and its record is longer than 1048576 bytes",
      "longer than 1048576 bytes",
      ["c", "d"],
    ]);
  });

  test.each([1, 7, 64])("many of them, one after the other, at the end, in chunks of %i bytes", async (chunk) => {
    const records = await read('"a\n'.repeat(3), ",", chunk);
    expect(records.map(({ fields, first }) => [fields, first.number])).toEqual([
      ["text follows the quote that ends field 1", 1],
      ["text follows the quote that ends field 1", 2],
      ["a quote is opened and never closed", 3],
    ]);
  });
});

import { describe, expect, test } from "vitest";
import { type Line, splitLines } from "../../src/datasets/lines.ts";

async function split(text: string, chunkBytes: number, maxBytes = 1_000): Promise<Line[]> {
  const bytes = Buffer.from(text);
  async function* chunks() {
    for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
  }
  const lines: Line[] = [];
  for await (const some of splitLines(chunks(), maxBytes)) lines.push(...some);
  return lines;
}

describe.each([1, 2, 3, 7, 64])("splitLines, chunks of %i bytes", (chunk) => {
  test("lines, their ends in bytes, line ends of both kinds, characters cut by chunks", async () => {
    const text = "a\nblümchen 🌻\r\n\nlast";
    const lines = await split(text, chunk);
    expect(lines.map(({ text }) => text)).toEqual(["a", "blümchen 🌻", "", "last"]);
    expect(lines.map(({ newline }) => newline)).toEqual(["\n", "\r\n", "\n", ""]);
    // Every line begins where the one before ended.
    const bytes = Buffer.from(text);
    expect(lines.map(({ end }) => bytes.subarray(end).toString())).toEqual([
      "blümchen 🌻\r\n\nlast",
      "\nlast",
      "last",
      "",
    ]);
  });

  test("a line that is too long is null, and the next is whole", async () => {
    const lines = await split(`${"x".repeat(50)}\nok\n${"y".repeat(51)}`, chunk, 20);
    expect(lines).toEqual([
      { text: null, newline: "\n", end: 51 },
      { text: "ok", newline: "\n", end: 54 },
      { text: null, newline: "", end: 105 },
    ]);
  });
});

test("a line of exactly the limit is kept", async () => {
  expect(await split("12345\n123456\n", 3, 5)).toEqual([
    { text: "12345", newline: "\n", end: 6 },
    { text: null, newline: "\n", end: 13 },
  ]);
});

import { expect, test } from "vitest";
import { compareKeys } from "../../src/storage/index.ts";

/** Every pair of these, by Node's own comparison of the UTF-8 bytes. */
const KEYS = [
  "",
  "a",
  "a/b",
  "a.txt",
  "a0",
  "A",
  "z",
  "é",
  "e\u0301",
  "\u007f",
  "\u0080",
  "\u07ff",
  "\u0800",
  "\ud7ff",
  "\ue000",
  "\uff5e",
  "\ufffd",
  "𐀀",
  "😀",
  "\u{10ffff}",
  "x😀",
  "x\uff5e",
  "x😀a",
  "😀😀",
  "😁",
];

test("compareKeys orders as the UTF-8 bytes do", () => {
  for (const a of KEYS)
    for (const b of KEYS)
      expect([a, b, Math.sign(compareKeys(a, b))]).toEqual([a, b, Buffer.compare(Buffer.from(a), Buffer.from(b))]);
});

test("UTF-16 order is another", () => {
  expect("😀" < "\uff5e").toBe(true);
  expect(compareKeys("😀", "\uff5e")).toBeGreaterThan(0);
});

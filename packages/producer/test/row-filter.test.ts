/** Rows that are looked for. */
import type { ResultRow } from "@capfleet/shared/contract";
import { expect, test } from "vitest";
import { type RowFilter, rowFilter } from "../src/jobs/row-filter.ts";

const row = (more: Partial<ResultRow>): ResultRow => ({ id: "x", image: "s3://b/Photo.jpg", ...more });
const ROWS: Record<string, ResultRow> = {
  sure: row({ caption: "A red Shoe", score: Math.log(0.95) }),
  unsure: row({ caption: "a boot", score: Math.log(0.1), captions: [{ text: "a SHOE", score: -3 }] }),
  failed: row({ error: { code: "IMAGE_EMPTY", message: "no bytes in shoe.jpg", retryable: false } }),
  refused: row({ error: { code: "IMAGE_UNREADABLE", message: "not a JPEG", retryable: false } }),
  answers: row({ answers: [{ question: "what?", answer: "one shoe", score: 0 }] }),
  cleaned: row({ pairs: [{ text: "shoes, cheap", origin: "web", itm: 0.12, kept: false }] }),
};
const found = (filter: Partial<RowFilter>) => {
  const passes = rowFilter({ code: null, search: null, score: null, ...filter })!;
  return Object.keys(ROWS).filter((name) => passes(ROWS[name]!));
};

test("by code, by any text in upper and lower case, by score, and all together", () => {
  expect(rowFilter({ code: null, search: null, score: null })).toBeNull();
  expect(found({ code: "IMAGE_EMPTY" })).toEqual(["failed"]);
  expect(found({ search: "sHoE" })).toEqual(["sure", "unsure", "failed", "answers", "cleaned"]);
  expect(found({ search: "photo" })).toEqual(Object.keys(ROWS));
  expect(found({ score: { from: 0.1, to: 0.15 } })).toEqual(["unsure", "cleaned"]);
  // The end is out, but for that of all.
  expect(found({ score: { from: 0.05, to: 0.1 } })).toEqual([]);
  expect(found({ score: { from: 0.95, to: 1 } })).toEqual(["sure", "answers"]);
  expect(found({ search: "shoe", score: { from: 0.9, to: 1 } })).toEqual(["sure", "answers"]);
  expect(found({ search: "shoe", code: "IMAGE_UNREADABLE" })).toEqual([]);
});

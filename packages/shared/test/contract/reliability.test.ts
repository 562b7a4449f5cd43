/** docs/reliability.md names a test for what it says: each has to be there. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const page = new URL("../../../../docs/reliability.md", import.meta.url);
const text = readFileSync(page, "utf8");
const named = [...text.matchAll(/\[[\w-]+\]\(([^)]+)\): "([^"]+)"/g)].map(([, file, name]) => [file!, name!] as const);

test.each(named)("%s: %s", (file, name) => {
  const source = readFileSync(new URL(file, page), "utf8");
  // As a title, and not in some comment.
  expect(source).toMatch(new RegExp(`[("'\`]${RegExp.escape(name)}["'\`],\\s+(async )?\\(`));
});

test("every guarantee and every failure in its tables has one", () => {
  const rows = text.split("\n").filter((line) => /^\| (?!---|`|guarantee|what fails|point)/.test(line));
  expect(rows.length).toBeGreaterThan(15);
  for (const row of rows) expect(row).toMatch(/: "[^"]+" \|$/);
});

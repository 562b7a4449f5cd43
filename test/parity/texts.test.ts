/** Texts of token ids, and token ids of texts, against transformers'. See README.md for where the answers come from. */
import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { readTokenizer, Texts } from "../../packages/worker/src/blip/tokenizer.ts";

const TEXTS = fileURLToPath(new URL("texts/", import.meta.url));

async function rowsOf<Row>(name: string, file: string): Promise<Row[]> {
  const lines = (await readFile(`${TEXTS}${name}/${file}`, "utf8")).trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as Row);
}

test.each(readdirSync(TEXTS))("%s: ids become the same text as in transformers", async (name) => {
  const texts = new Texts(await readTokenizer(TEXTS + name));
  const golden = await rowsOf<{ ids: number[]; text: string }>(name, "golden.jsonl");
  for (const { ids, text } of golden) expect({ ids, text: texts.decode(ids) }).toEqual({ ids, text });
});

interface Encoded {
  text: string;
  maxTokens: number;
  ids: number[];
  cut: boolean;
}

test.each(readdirSync(TEXTS))("%s: texts become the same ids as in transformers", async (name) => {
  const texts = new Texts(await readTokenizer(TEXTS + name));
  const golden = await rowsOf<Encoded>(name, "encode.jsonl");
  const own = golden.map(({ text, maxTokens }) => ({ text, maxTokens, ...texts.encode(text, { maxTokens }) }));
  expect(own).toEqual(golden);
});

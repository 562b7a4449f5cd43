/** Texts of token ids, and token ids of texts, against transformers'. See README.md for where the answers come from. */
import { existsSync, readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { readTokenizer, Texts } from "../../packages/worker/src/blip/tokenizer.ts";

const TEXTS = fileURLToPath(new URL("texts/", import.meta.url));
const ALL = readdirSync(TEXTS);
/** Where texts are put between [CLS] and [SEP]. */
const BERT = ALL.filter((name) => existsSync(`${TEXTS}${name}/encode.jsonl`));

async function rowsOf<Row>(name: string, file: string): Promise<Row[]> {
  const lines = (await readFile(`${TEXTS}${name}/${file}`, "utf8")).trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as Row);
}

interface Row {
  ids: number[];
  text: string;
}

test.each(ALL)("%s: ids become the same text as in transformers", async (name) => {
  const texts = new Texts(await readTokenizer(TEXTS + name));
  const golden = await rowsOf<Row>(name, "golden.jsonl");
  for (const { ids, text } of golden) expect({ ids, text: texts.decode(ids) }).toEqual({ ids, text });
});

test.each(ALL)("%s: texts become the same ids as in transformers, without special tokens", async (name) => {
  const texts = new Texts(await readTokenizer(TEXTS + name));
  const golden = await rowsOf<Row>(name, "tokens.jsonl");
  for (const { text, ids } of golden) expect({ text, ids: texts.tokens(text) }).toEqual({ text, ids });
});

interface Encoded extends Row {
  maxTokens: number;
  cut: boolean;
}

test.each(BERT)("%s: texts become the same ids as in transformers, with special tokens", async (name) => {
  const texts = new Texts(await readTokenizer(TEXTS + name));
  const golden = await rowsOf<Encoded>(name, "encode.jsonl");
  const own = golden.map(({ text, maxTokens }) => ({ text, maxTokens, ...texts.encode(text, { maxTokens }) }));
  expect(own).toEqual(golden);
});

/** Texts of token ids against transformers'. See README.md for where the answers come from. */
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { readTokenizer, Texts } from "../../packages/worker/src/blip/tokenizer.ts";
import { readGolden } from "../../packages/worker/test/blip/checkpoints.ts";

const TEXTS = fileURLToPath(new URL("texts/", import.meta.url));

test.each(readdirSync(TEXTS))("%s: ids become the same text as in transformers", async (name) => {
  const texts = new Texts(await readTokenizer(TEXTS + name));
  const golden = await readGolden(TEXTS + name);
  expect(golden.length).toBeGreaterThan(0);
  for (const { ids, text } of golden) expect({ ids, text: texts.decode(ids) }).toEqual({ ids, text });
});

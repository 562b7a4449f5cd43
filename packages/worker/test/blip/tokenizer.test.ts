import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { checkVocabulary, readTokenizer, Texts } from "../../src/blip/tokenizer.ts";
import { editJson, Folder } from "./checkpoints.ts";

const TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog"];
const SEP = 3;

async function withVocabulary(tokens: readonly string[]): Promise<Folder> {
  const folder = await Folder.make();
  await writeFile(folder.at("vocab.txt"), tokens.join("\n"));
  return folder;
}

/** As transformers saves the same tokenizer. */
async function withTokenizerJson(
  edit: (json: { post_processor: unknown; added_tokens: object[]; decoder: unknown }) => void,
) {
  await using plain = await withVocabulary(TOKENS);
  const files = await readTokenizer(plain.path);
  const folder = await Folder.make();
  await writeFile(folder.at("tokenizer.json"), JSON.stringify(files["tokenizer.json"]));
  await editJson(folder.at("tokenizer.json"), edit);
  return folder;
}

async function check(folder: Folder, model: { vocabulary: number; end: number }): Promise<void> {
  await using own = folder;
  checkVocabulary(own.path, await readTokenizer(own.path), model);
}

test("a tokenizer may have as many ids as the model, or fewer", async () => {
  await check(await withVocabulary(TOKENS), { vocabulary: TOKENS.length, end: SEP });
  await check(await withVocabulary(TOKENS), { vocabulary: TOKENS.length + 2, end: SEP });
  await check(await withTokenizerJson((json) => json.added_tokens.push({ id: 7, content: "[DEC]", special: true })), {
    vocabulary: 8,
    end: SEP,
  });
});

const without = (token: string) => TOKENS.map((other) => (other === token ? "other" : other));
test.each<[string, () => Promise<Folder>, { vocabulary: number; end: number }, RegExp]>([
  [
    "has more ids than the model",
    () => withVocabulary(TOKENS),
    { vocabulary: 6, end: SEP },
    /has id 6 \(dog\), beyond text_config\.vocab_size in config\.json, 6/,
  ],
  [
    "has an added token beyond the model's",
    () => withTokenizerJson((json) => json.added_tokens.push({ id: 9, content: "[DEC]", special: true })),
    { vocabulary: 9, end: SEP },
    /has id 9 \(\[DEC\]\), beyond .* 9$/,
  ],
  [
    "has another id for [SEP]",
    () => withVocabulary(TOKENS),
    { vocabulary: 7, end: 5 },
    /ends texts with id 3; text_config\.sep_token_id in config\.json is 5/,
  ],
  ["has no [SEP]", () => withVocabulary(without("[SEP]")), { vocabulary: 7, end: SEP }, /the tokenizer has no \[SEP\]/],
  ["has no [CLS]", () => withVocabulary(without("[CLS]")), { vocabulary: 7, end: SEP }, /the tokenizer has no \[CLS\]/],
  ["has no [UNK]", () => withVocabulary(without("[UNK]")), { vocabulary: 7, end: SEP }, /the tokenizer has no \[UNK\]/],
  [
    "puts nothing around a text",
    () => withTokenizerJson((json) => Object.assign(json, { post_processor: null })),
    { vocabulary: 7, end: SEP },
    /puts 0 tokens around a text; expected 2/,
  ],
  [
    "is in a form that is not known",
    () => withTokenizerJson((json) => Object.assign(json, { decoder: { type: "Other" } })),
    { vocabulary: 7, end: SEP },
    /the tokenizer can't be used: .*Other/,
  ],
])("a tokenizer that %s is MODEL_INVALID", async (_, folder, model, message) => {
  const invalid = { code: "MODEL_INVALID", message: expect.stringMatching(message) };
  await expect(folder().then((made) => check(made, model))).rejects.toMatchObject(invalid);
});

test.each<[string, object, RegExp]>([
  ["an id that is no whole number", { model: { vocab: { a: 0.5 } } }, /tokenizer\.json: model\.vocab\.a/],
  [
    "a negative id",
    { model: { vocab: {} }, added_tokens: [{ id: -1, content: "a", special: true }] },
    /added_tokens\.0\.id/,
  ],
  ["no vocabulary", { model: {} }, /tokenizer\.json: model\.vocab/],
])("a tokenizer.json with %s is MODEL_INVALID", async (_, content, message) => {
  await using folder = await Folder.make();
  await writeFile(folder.at("tokenizer.json"), JSON.stringify(content));
  const invalid = { code: "MODEL_INVALID", message: expect.stringMatching(message) };
  await expect(readTokenizer(folder.path)).rejects.toMatchObject(invalid);
});

test("a cut text keeps [CLS] and [SEP]", async () => {
  await using folder = await withVocabulary(TOKENS);
  const texts = new Texts(await readTokenizer(folder.path));
  expect(texts.encode("a dog a dog", { maxTokens: 6 })).toEqual({ ids: [2, 5, 6, 5, 6, 3], cut: false });
  expect(texts.encode("a dog a dog", { maxTokens: 5 })).toEqual({ ids: [2, 5, 6, 5, 3], cut: true });
  expect(texts.encode("a dog a dog", { maxTokens: 2 })).toEqual({ ids: [2, 3], cut: true });
});

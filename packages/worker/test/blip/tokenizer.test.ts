import { writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import type { Vocabulary } from "../../src/blip/families/family.ts";
import { checkVocabulary, readTokenizer, Texts } from "../../src/blip/tokenizer.ts";
import { editJson, Folder } from "./checkpoints.ts";

const invalid = (message: RegExp) => ({ code: "MODEL_INVALID", message: expect.stringMatching(message) });

async function check(folder: Folder, model: Vocabulary): Promise<void> {
  await using own = folder;
  checkVocabulary(own.path, await readTokenizer(own.path), model);
}

async function withFiles(files: Record<string, unknown>): Promise<Folder> {
  const folder = await Folder.make();
  for (const [name, content] of Object.entries(files)) {
    await writeFile(folder.at(name), typeof content === "string" ? content : JSON.stringify(content));
  }
  return folder;
}

/** As `readTokenizer` makes it of `files`, and tokenizers save it. */
async function asTokenizerJson<Json>(files: Record<string, unknown>, edit: (json: Json) => void): Promise<Folder> {
  await using folder = await withFiles(files);
  const made = await withFiles(await readTokenizer(folder.path).then((read) => ({ ...read })));
  await editJson(made.at("tokenizer.json"), edit);
  return made;
}

test("a folder without a tokenizer is MODEL_INVALID", async () => {
  await using folder = await withFiles({ "merges.txt": "" });
  const message = /has neither tokenizer\.json nor vocab\.txt nor vocab\.json and merges\.txt/;
  await expect(readTokenizer(folder.path)).rejects.toMatchObject(invalid(message));
});

test.each<[string, object, RegExp]>([
  ["an id that is no whole number", { model: { vocab: { a: 0.5 } } }, /tokenizer\.json: model\.vocab\.a/],
  [
    "a negative id",
    { model: { vocab: {} }, added_tokens: [{ id: -1, content: "a", special: true }] },
    /added_tokens\.0\.id/,
  ],
  ["no vocabulary", { model: {} }, /tokenizer\.json: model\.vocab/],
  ["a merge of three", { model: { vocab: {}, merges: [["a", "b", "c"]] } }, /tokenizer\.json: model\.merges\.0/],
  ["a merge of three, as a text", { model: { vocab: {}, merges: ["a b c"] } }, /tokenizer\.json: model\.merges\.0/],
])("a tokenizer.json with %s is MODEL_INVALID", async (_, content, message) => {
  await using folder = await withFiles({ "tokenizer.json": content });
  await expect(readTokenizer(folder.path)).rejects.toMatchObject(invalid(message));
});

describe("BERT's", () => {
  const TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog"];
  const SEP = 3;
  const bert = (vocabulary: number, end: number | null = SEP): Vocabulary => ({ kind: "bert", vocabulary, end });

  const withVocabulary = (tokens: readonly string[]) => withFiles({ "vocab.txt": tokens.join("\n") });
  type Json = { post_processor: unknown; added_tokens: object[]; decoder: unknown };
  const withTokenizerJson = (edit: (json: Json) => void) => asTokenizerJson({ "vocab.txt": TOKENS.join("\n") }, edit);

  test("may have as many ids as the model, or fewer", async () => {
    await check(await withVocabulary(TOKENS), bert(TOKENS.length));
    await check(await withVocabulary(TOKENS), bert(TOKENS.length + 2));
    const added = await withTokenizerJson((json) => json.added_tokens.push({ id: 7, content: "[DEC]", special: true }));
    await check(added, bert(8));
  });

  test("may have an image token beyond the model's ids, as a Blip2Processor adds it; in texts it is no token", async () => {
    const withImage = () =>
      withTokenizerJson((json) => json.added_tokens.push({ id: 7, content: "<image>", special: true }));
    await check(await withImage(), bert(7, null));
    await using folder = await withImage();
    const texts = new Texts(await readTokenizer(folder.path));
    expect(texts.tokens("a <image> dog")).toEqual([5, 1, 1, 1, 6]);
  });

  test("may end texts with any id where the model's config has none", async () => {
    await check(await withVocabulary(TOKENS), bert(7, null));
  });

  const without = (token: string) => TOKENS.map((other) => (other === token ? "other" : other));
  test.each<[string, () => Promise<Folder>, Vocabulary, RegExp]>([
    [
      "has more ids than the model",
      () => withVocabulary(TOKENS),
      bert(6),
      /has id 6 \(dog\), beyond the model's vocabulary: vocab_size in config\.json is 6$/,
    ],
    [
      "has an added token beyond the model's",
      () => withTokenizerJson((json) => json.added_tokens.push({ id: 9, content: "[DEC]", special: true })),
      bert(9),
      /has id 9 \(\[DEC\]\), beyond .* 9$/,
    ],
    [
      "has another id for [SEP]",
      () => withVocabulary(TOKENS),
      bert(7, 5),
      /ends texts with id 3; text_config\.sep_token_id in config\.json is 5/,
    ],
    ["has no [SEP]", () => withVocabulary(without("[SEP]")), bert(7), /the tokenizer has no \[SEP\]/],
    ["has no [CLS]", () => withVocabulary(without("[CLS]")), bert(7), /the tokenizer has no \[CLS\]/],
    ["has no [UNK]", () => withVocabulary(without("[UNK]")), bert(7), /the tokenizer has no \[UNK\]/],
    [
      "puts nothing around a text",
      () => withTokenizerJson((json) => Object.assign(json, { post_processor: null })),
      bert(7, null),
      /puts 0 tokens around a text; expected 2/,
    ],
    [
      "is in a form that is not known",
      () => withTokenizerJson((json) => Object.assign(json, { decoder: { type: "Other" } })),
      bert(7),
      /the tokenizer can't be used: .*Other/,
    ],
    [
      "is not the language model's",
      () => withVocabulary(TOKENS),
      { kind: "bpe", vocabulary: 7, start: 2, end: 3 },
      /the tokenizer is BERT's \(WordPiece\), but the model's is OPT's \(byte-level BPE\)/,
    ],
  ])("a tokenizer that %s is MODEL_INVALID", async (_, folder, model, message) => {
    await expect(folder().then((made) => check(made, model))).rejects.toMatchObject(invalid(message));
  });

  test("a cut text keeps [CLS] and [SEP]", async () => {
    await using folder = await withVocabulary(TOKENS);
    const texts = new Texts(await readTokenizer(folder.path));
    expect(texts.encode("a dog a dog", { maxTokens: 6 })).toEqual({ ids: [2, 5, 6, 5, 6, 3], cut: false });
    expect(texts.encode("a dog a dog", { maxTokens: 5 })).toEqual({ ids: [2, 5, 6, 5, 3], cut: true });
    expect(texts.encode("a dog a dog", { maxTokens: 2 })).toEqual({ ids: [2, 3], cut: true });
  });
});

describe("OPT's", () => {
  const TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "d", "o", "g", "#", "Ġ", "do", "dog", "##"];
  const vocab = Object.fromEntries(TOKENS.map((token, id) => [token, id]));
  const MERGES = "#version: 0.2\nd o\ndo g\n# #\n";
  const CONFIG = { tokenizer_class: "GPT2Tokenizer", bos_token: "</s>", eos_token: "</s>", unk_token: "</s>" };
  const FILES = { "vocab.json": vocab, "merges.txt": MERGES, "tokenizer_config.json": CONFIG };
  const opt = (vocabulary: number) => ({ kind: "bpe", vocabulary, start: 2, end: 2 }) as const;

  async function textsOf(folder: Folder): Promise<Texts> {
    await using own = folder;
    return new Texts(await readTokenizer(own.path));
  }

  test("may have as many ids as the model, or fewer", async () => {
    await check(await withFiles(FILES), opt(12));
    await check(await withFiles(FILES), opt(16));
  });

  test.each<[string, Record<string, unknown>, Vocabulary, RegExp]>([
    ["has more ids than the model", FILES, opt(11), /has id 11 \(##\), beyond the model's vocabulary: .* 11$/],
    [
      "has an added token beyond the model's",
      { ...FILES, "added_tokens.json": { "<image>": 12 } },
      opt(12),
      /has id 12 \(<image>\), beyond the model's vocabulary: .* 12$/,
    ],
    ["lacks the first id", FILES, { ...opt(16), start: 13 }, /has no id 13, which is text_config\.bos_token_id/],
    ["lacks the last id", FILES, { ...opt(16), end: 14 }, /has no id 14, which is text_config\.eos_token_id/],
    [
      "is not the model's",
      FILES,
      { kind: "bert", vocabulary: 12, end: null },
      /the tokenizer is OPT's \(byte-level BPE\), but the model's is BERT's \(WordPiece\)/,
    ],
  ])("a tokenizer that %s is MODEL_INVALID", async (_, files, model, message) => {
    await expect(withFiles(files).then((made) => check(made, model))).rejects.toMatchObject(invalid(message));
  });

  test.each<[string, Record<string, unknown>, RegExp]>([
    ["no merges.txt", { "vocab.json": vocab }, /merges\.txt is missing/],
    ["a merge of one token", { ...FILES, "merges.txt": "d o\ndog\n" }, /merges\.txt: line 2 is not two tokens/],
    ["a merge of three tokens", { ...FILES, "merges.txt": "d o g\n" }, /merges\.txt: line 1 is not two tokens/],
    ["a merge of a token that is not there", { ...FILES, "merges.txt": "d x\n" }, /merges d x, but has no token x$/],
    ["a merge to a token that is not there", { ...FILES, "merges.txt": "o g\n" }, /merges o g, but has no token og$/],
    [
      "an added token that is only found as a word",
      { ...FILES, "tokenizer_config.json": { added_tokens_decoder: { 12: { content: "cat", single_word: true } } } },
      /tokenizer_config\.json: added_tokens_decoder\.12\.single_word/,
    ],
    [
      "a special token that is only found as a word",
      { ...FILES, "special_tokens_map.json": { mask_token: { content: "cat", single_word: true } } },
      /the tokenizer's token cat: single_word/,
    ],
    [
      "special tokens that are not found in texts",
      { ...FILES, "tokenizer_config.json": { ...CONFIG, split_special_tokens: true } },
      /tokenizer_config\.json: split_special_tokens/,
    ],
  ])("%s is MODEL_INVALID", async (_, files, message) => {
    await using folder = await withFiles(files);
    await expect(readTokenizer(folder.path)).rejects.toMatchObject(invalid(message));
  });

  test.each<[string, object, RegExp]>([
    ["a normalizer", { normalizer: { type: "NFC" } }, /tokenizer\.json: normalizer/],
    ["other words", { pre_tokenizer: { type: "ByteLevel", use_regex: false } }, /json: pre_tokenizer\.use_regex/],
    ["no bytes", { decoder: { type: "BPEDecoder" } }, /json: decoder\.type/],
  ])("a tokenizer.json that counts as it is, with %s, is MODEL_INVALID", async (_, edited, message) => {
    await using folder = await asTokenizerJson<object>(FILES, (json) => Object.assign(json, edited));
    await editJson(folder.at("tokenizer_config.json"), (config) =>
      Object.assign(config, { tokenizer_class: "PreTrainedTokenizerFast" }),
    );
    await expect(readTokenizer(folder.path)).rejects.toMatchObject(invalid(message));
  });

  test("only the version is a comment in merges.txt, and lines may end as on Windows", async () => {
    const texts = await textsOf(await withFiles({ ...FILES, "merges.txt": MERGES.replaceAll("\n", "\r\n") }));
    expect(texts.tokens("dog ##")).toEqual([10, 8, 11]);
  });

  test("an engine's folder has what the checkpoint has", async () => {
    const files = { ...FILES, "added_tokens.json": { "<image>": 12 } };
    await using folder = await asTokenizerJson(files, () => {});
    const texts = await Texts.load(folder.path);
    expect(texts.tokens("dog<image></s> dog")).toEqual([10, 12, 2, 8, 10]);
    expect(texts.decode([10, 12, 2, 8, 10])).toBe("dog<image> dog");
  });

  test("no ids are no text, and so are ids that the tokenizer does not know", async () => {
    const texts = await textsOf(await withFiles(FILES));
    expect(texts.decode([])).toBe("");
    expect(texts.decode([12, 99])).toBe("");
  });
});

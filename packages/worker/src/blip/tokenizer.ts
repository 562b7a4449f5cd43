/**
 * The checkpoint's tokenizer. Where it has no tokenizer.json, one is built from vocab.txt as transformers' BertTokenizer
 * does. Texts are what transformers' `decode(ids, skip_special_tokens=True).strip()` makes of ids, and ids are what a
 * BlipProcessor makes of texts with `truncation=True, max_length=maxTokens`.
 */
import { join } from "node:path";
import { CapfleetError } from "@capfleet/shared/contract";
import { Tokenizer } from "@huggingface/tokenizers";
import * as z from "zod";
import { readJson, readOptionalJson, readOptionalText } from "./json.ts";

const TOKENIZER = "tokenizer.json";
const CONFIG = "tokenizer_config.json";

const id = z.number().int().min(0);
const tokenizerSchema = z.looseObject({
  added_tokens: z.array(z.looseObject({ id, content: z.string(), special: z.boolean() })).default([]),
  model: z.looseObject({ vocab: z.record(z.string(), id) }),
});
const token = z.union([z.string(), z.looseObject({ content: z.string() }).transform(({ content }) => content)]);
/** With BertTokenizer's defaults. Further special tokens are in fields that are found by their names. */
const configSchema = z.looseObject({
  unk_token: token.default("[UNK]"),
  sep_token: token.default("[SEP]"),
  pad_token: token.default("[PAD]"),
  cls_token: token.default("[CLS]"),
  mask_token: token.default("[MASK]"),
  clean_up_tokenization_spaces: z.boolean().nullish(),
  do_lower_case: z.boolean().default(true),
  tokenize_chinese_chars: z.boolean().default(true),
  strip_accents: z.boolean().nullable().default(null),
});
type TokenizerJson = z.infer<typeof tokenizerSchema>;
type TokenizerConfig = z.infer<typeof configSchema>;

export interface TokenizerFiles {
  "tokenizer.json": TokenizerJson;
  "tokenizer_config.json": TokenizerConfig;
}

/** Reads a checkpoint's tokenizer, with all its special tokens marked as such. Throws MODEL_INVALID. */
export async function readTokenizer(folder: string): Promise<TokenizerFiles> {
  const config = (await readOptionalJson(join(folder, CONFIG), configSchema)) ?? configSchema.parse({});
  const more = await readOptionalJson(join(folder, "special_tokens_map.json"), z.looseObject({}));
  const found = await readOptionalJson(join(folder, TOKENIZER), tokenizerSchema);
  const json = found ?? bertTokenizer(await readVocabulary(folder), config);

  const special = new Set([...specialTokens(config), ...specialTokens(more ?? {})]);
  const added = json.added_tokens.map((token) => (special.has(token.content) ? { ...token, special: true } : token));
  for (const content of special) {
    const id = json.model.vocab[content];
    if (id === undefined || added.some((token) => token.content === content)) continue;
    added.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true });
  }
  return { [TOKENIZER]: { ...json, added_tokens: added }, [CONFIG]: config };
}

/**
 * Throws MODEL_INVALID where the folder's tokenizer is not the model's: it has an id that the model's vocabulary has no
 * place for, lacks a token that BERT needs, does not put [CLS] … [SEP] around a text, or has another id for [SEP]. It
 * may have fewer ids than the model: BLIP's often lack those that were added to BERT's, [DEC] and [ENC].
 */
export function checkVocabulary(
  folder: string,
  files: TokenizerFiles,
  text: { vocabulary: number; end: number },
): void {
  const why = unfit(files, text);
  if (why) throw new CapfleetError("MODEL_INVALID", `${folder}: the tokenizer ${why}`);
}

function unfit(files: TokenizerFiles, { vocabulary, end }: { vocabulary: number; end: number }): string | null {
  const { added_tokens, model } = files[TOKENIZER];
  const ids = new Map([
    ...Object.entries(model.vocab),
    ...added_tokens.map(({ content, id }) => [content, id] as const),
  ]);
  for (const [token, id] of ids) {
    if (id >= vocabulary) return `has id ${id} (${token}), beyond text_config.vocab_size in config.json, ${vocabulary}`;
  }
  const { unk_token, cls_token, sep_token } = files[CONFIG];
  const missing = [unk_token, cls_token, sep_token].find((token) => !ids.has(token));
  if (missing !== undefined) return `has no ${missing}`;
  try {
    const { ids } = new Texts(files).encode("", { maxTokens: Number.POSITIVE_INFINITY });
    if (ids.length !== 2) return `puts ${ids.length} tokens around a text; expected 2, [CLS] and [SEP]`;
    return ids[1] === end ? null : `ends texts with id ${ids[1]}; text_config.sep_token_id in config.json is ${end}`;
  } catch (cause) {
    return `can't be used: ${(cause as Error).message}`;
  }
}

/** Between ids and texts, with a tokenizer as `readTokenizer` returns it and the engine's folder has it. */
export class Texts {
  readonly #tokenizer: Tokenizer;
  readonly #cleanUp: boolean;

  constructor(files: TokenizerFiles) {
    this.#tokenizer = new Tokenizer(files[TOKENIZER], files[CONFIG]);
    const bert = bertSchema.safeParse(files[TOKENIZER].normalizer).data;
    if (bert) this.#tokenizer.normalizer = (text: string) => normalize(text, bert);
    // The tokenizer's own default is true, transformers' is false.
    this.#cleanUp = files[CONFIG].clean_up_tokenization_spaces ?? false;
  }

  static async load(folder: string): Promise<Texts> {
    return new Texts({
      [TOKENIZER]: await readJson(join(folder, TOKENIZER), tokenizerSchema),
      [CONFIG]: await readJson(join(folder, CONFIG), configSchema),
    });
  }

  /** [CLS] … [SEP], `maxTokens` (at least 2) at most; `cut` says whether the text has lost its end. */
  encode(text: string, { maxTokens }: { maxTokens: number }): { ids: number[]; cut: boolean } {
    const { ids } = this.#tokenizer.encode(text);
    if (ids.length <= maxTokens) return { ids, cut: false };
    return { ids: [...ids.slice(0, maxTokens - 1), ids.at(-1)!], cut: true };
  }

  /** At least one id. Special tokens, and ids that the tokenizer does not know, are left out. */
  decode(ids: readonly number[]): string {
    const options = { skip_special_tokens: true, clean_up_tokenization_spaces: this.#cleanUp };
    return this.#tokenizer.decode([...ids], options).trim();
  }
}

/** Unified ideographs, each of which is a word to BERT. */
const IDEOGRAPH =
  /[\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{2F800}-\u{2FA1F}]/gu;
const REMOVED = /[\0\uFFFD]|(?![\t\n\r])[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu;

const bertSchema = z.looseObject({
  type: z.literal("BertNormalizer"),
  clean_text: z.boolean().default(true),
  handle_chinese_chars: z.boolean().default(true),
  /** Null: where `lowercase` is set. */
  strip_accents: z.boolean().nullable().default(null),
  lowercase: z.boolean().default(true),
});
type BertNormalizer = z.infer<typeof bertSchema>;

/**
 * As Hugging Face tokenizers (normalizers/bert.rs) has it, which is what transformers uses. @huggingface/tokenizers 0.2.0
 * does not see ideographs beyond U+FFFF and makes ς of a Σ at a word's end.
 */
function normalize(
  text: string,
  { clean_text, handle_chinese_chars, lowercase, strip_accents }: BertNormalizer,
): string {
  let normal = text;
  if (clean_text) normal = normal.replace(REMOVED, "").replace(/\s/gu, " ");
  if (handle_chinese_chars) normal = normal.replace(IDEOGRAPH, " $& ");
  if (strip_accents ?? lowercase) normal = normal.normalize("NFD").replace(/\p{Mn}/gu, "");
  return lowercase ? normal.replaceAll("Σ", "σ").toLowerCase() : normal;
}

async function readVocabulary(folder: string): Promise<Record<string, number>> {
  const text = await readOptionalText(join(folder, "vocab.txt"));
  if (text === null) throw new CapfleetError("MODEL_INVALID", `${folder} has neither ${TOKENIZER} nor vocab.txt`);
  const lines = text.split(/\r\n|\r|\n/);
  if (lines.at(-1) === "") lines.pop();
  return Object.fromEntries(lines.map((token, id) => [token, id]));
}

/** What stands in fields such as `bos_token` and `additional_special_tokens`; a token is a string or has a `content`. */
function specialTokens(config: Record<string, unknown>): string[] {
  const fields = Object.entries(config).filter(([name]) => /(_token|_special_tokens)$/.test(name));
  return fields
    .flatMap(([, value]) => value)
    .map((value) => token.safeParse(value).data)
    .filter((name) => name !== undefined);
}

/** transformers' BertTokenizer (models/bert/tokenization_bert.py), as a tokenizer.json. */
function bertTokenizer(vocab: Record<string, number>, config: TokenizerConfig): TokenizerJson {
  const { unk_token, cls_token: cls, sep_token: sep } = config;
  const special = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } });
  const sequence = (id: string, type_id: number) => ({ Sequence: { id, type_id } });
  const named = (token: string) => ({ id: token, ids: [vocab[token]], tokens: [token] });
  const single = [special(cls, 0), sequence("A", 0), special(sep, 0)];
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [],
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: config.tokenize_chinese_chars,
      strip_accents: config.strip_accents,
      lowercase: config.do_lower_case,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: {
      type: "TemplateProcessing",
      single,
      pair: [...single, sequence("B", 1), special(sep, 1)],
      special_tokens: { [cls]: named(cls), [sep]: named(sep) },
    },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: { type: "WordPiece", unk_token, continuing_subword_prefix: "##", max_input_chars_per_word: 100, vocab },
  };
}

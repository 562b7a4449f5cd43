/**
 * The checkpoint's tokenizer. Where it has no tokenizer.json, one is built from vocab.txt as transformers' BertTokenizer
 * does. Texts are what transformers' `decode(ids, skip_special_tokens=True).strip()` makes of ids.
 */
import { join } from "node:path";
import { CapfleetError } from "@capfleet/shared/contract";
import { Tokenizer } from "@huggingface/tokenizers";
import * as z from "zod";
import { readJson, readOptionalJson, readOptionalText } from "./json.ts";

const TOKENIZER = "tokenizer.json";
const CONFIG = "tokenizer_config.json";

const tokenizerSchema = z.looseObject({
  added_tokens: z.array(z.looseObject({ id: z.number(), content: z.string(), special: z.boolean() })).default([]),
  model: z.looseObject({ vocab: z.record(z.string(), z.number()) }),
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

/** From ids to text, with a tokenizer as `readTokenizer` returns it and the engine's folder has it. */
export class Texts {
  readonly #tokenizer: Tokenizer;
  readonly #cleanUp: boolean;

  constructor(files: TokenizerFiles) {
    this.#tokenizer = new Tokenizer(files[TOKENIZER], files[CONFIG]);
    // The tokenizer's own default is true, transformers' is false.
    this.#cleanUp = files[CONFIG].clean_up_tokenization_spaces ?? false;
  }

  static async load(folder: string): Promise<Texts> {
    return new Texts({
      [TOKENIZER]: await readJson(join(folder, TOKENIZER), tokenizerSchema),
      [CONFIG]: await readJson(join(folder, CONFIG), configSchema),
    });
  }

  /** At least one id. Special tokens, and ids that the tokenizer does not know, are left out. */
  decode(ids: readonly number[]): string {
    const options = { skip_special_tokens: true, clean_up_tokenization_spaces: this.#cleanUp };
    return this.#tokenizer.decode([...ids], options).trim();
  }
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

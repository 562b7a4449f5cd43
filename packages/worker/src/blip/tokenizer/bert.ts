/** BERT's tokenizer, WordPiece: as transformers' BertTokenizer (models/bert/tokenization_bert.py) makes it. */
import { join } from "node:path";
import { CapfleetError } from "@capfleet/shared/contract";
import * as z from "zod";
import { readOptionalJson, readOptionalText } from "../json.ts";
import type { TokenizerJson } from "./files.ts";
import { CONFIG, contentSchema, decodingSchema, specialTokens, TOKENIZER, type TokenizerFiles } from "./files.ts";

/** With BertTokenizer's defaults. Further special tokens are in fields that are found by their names. */
export const bertConfigSchema = decodingSchema.extend({
  unk_token: contentSchema.default("[UNK]"),
  sep_token: contentSchema.default("[SEP]"),
  pad_token: contentSchema.default("[PAD]"),
  cls_token: contentSchema.default("[CLS]"),
  mask_token: contentSchema.default("[MASK]"),
  do_lower_case: z.boolean().default(true),
  tokenize_chinese_chars: z.boolean().default(true),
  strip_accents: z.boolean().nullable().default(null),
});
type BertConfig = z.infer<typeof bertConfigSchema>;

/**
 * A Blip2Processor adds it after the last id that the model has a place for, and takes it out again before texts get to
 * the model. Where somebody writes it in a text, transformers fails; here it is three words.
 */
const IMAGE = "<image>";

/** Of `found`, the folder's tokenizer.json, or of its vocab.txt, with all special tokens marked as such. */
export async function readBert(folder: string, found: TokenizerJson | null): Promise<TokenizerFiles> {
  const config = (await readOptionalJson(join(folder, CONFIG), bertConfigSchema)) ?? bertConfigSchema.parse({});
  const more = await readOptionalJson(join(folder, "special_tokens_map.json"), z.looseObject({}));
  const json = found ?? bertTokenizer(await readVocabulary(folder), config);

  const tokens = [config, more ?? {}].map(specialTokens).flatMap(({ named, extra }) => [...named, ...extra]);
  const special = new Set(tokens.map(({ content }) => content));
  const added = json.added_tokens
    .filter(({ content }) => content !== IMAGE || content in json.model.vocab)
    .map((token) => (special.has(token.content) ? { ...token, special: true } : token));
  for (const content of special) {
    const id = json.model.vocab[content];
    if (id === undefined || added.some((token) => token.content === content)) continue;
    added.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true });
  }
  return { [TOKENIZER]: { ...json, added_tokens: added }, [CONFIG]: config };
}

async function readVocabulary(folder: string): Promise<Record<string, number>> {
  const text = await readOptionalText(join(folder, "vocab.txt"));
  if (text === null) throw new CapfleetError("MODEL_INVALID", `${join(folder, "vocab.txt")} is missing`);
  const lines = text.split(/\r\n|\r|\n/);
  if (lines.at(-1) === "") lines.pop();
  return Object.fromEntries(lines.map((token, id) => [token, id]));
}

function bertTokenizer(vocab: Record<string, number>, config: BertConfig): TokenizerJson {
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

/** Unified ideographs, each of which is a word to BERT. */
const IDEOGRAPH =
  /[\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{2F800}-\u{2FA1F}]/gu;
const REMOVED = /[\0\uFFFD]|(?![\t\n\r])[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu;

export const bertNormalizerSchema = z.looseObject({
  type: z.literal("BertNormalizer"),
  clean_text: z.boolean().default(true),
  handle_chinese_chars: z.boolean().default(true),
  /** Null: where `lowercase` is set. */
  strip_accents: z.boolean().nullable().default(null),
  lowercase: z.boolean().default(true),
});

/**
 * As Hugging Face tokenizers (normalizers/bert.rs) has it, which is what transformers uses. @huggingface/tokenizers 0.2.0
 * does not see ideographs beyond U+FFFF and makes ς of a Σ at a word's end.
 */
export function bertNormalize(
  text: string,
  { clean_text, handle_chinese_chars, lowercase, strip_accents }: z.infer<typeof bertNormalizerSchema>,
): string {
  let normal = text;
  if (clean_text) normal = normal.replace(REMOVED, "").replace(/\s/gu, " ");
  if (handle_chinese_chars) normal = normal.replace(IDEOGRAPH, " $& ");
  if (strip_accents ?? lowercase) normal = normal.normalize("NFD").replace(/\p{Mn}/gu, "");
  return lowercase ? normal.replaceAll("Σ", "σ").toLowerCase() : normal;
}

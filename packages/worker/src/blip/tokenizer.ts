/**
 * The checkpoint's tokenizer: BERT's (WordPiece) or OPT's (byte-level BPE). Where it has no tokenizer.json, one is built
 * of the files that stand in for it, as transformers does. Texts are what transformers'
 * `decode(ids, skip_special_tokens=True).strip()` makes of ids; ids are what a BlipProcessor makes of texts with
 * `truncation=True, max_length=maxTokens`, or any tokenizer with `add_special_tokens=False`.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { CapfleetError } from "@capfleet/shared/contract";
import { Tokenizer } from "@huggingface/tokenizers";
import type { Vocabulary } from "./families/family.ts";
import { readJson, readOptionalJson } from "./json.ts";
import { bertConfigSchema, bertNormalize, bertNormalizerSchema, readBert } from "./tokenizer/bert.ts";
import { byteLevelSchema, readBytePairs } from "./tokenizer/bpe.ts";
import { textOf, wordsOf } from "./tokenizer/bytes.ts";
import { CONFIG, decodingSchema, TOKENIZER, type TokenizerFiles, tokenizerSchema } from "./tokenizer/files.ts";

export type { TokenizerFiles } from "./tokenizer/files.ts";

/** Reads a checkpoint's tokenizer, with all its special tokens marked as such. Throws MODEL_INVALID. */
export async function readTokenizer(folder: string): Promise<TokenizerFiles> {
  const found = await readOptionalJson(join(folder, TOKENIZER), tokenizerSchema);
  if (found) return isBytePairs(found) ? readBytePairs(folder, found) : readBert(folder, found);
  if (existsSync(join(folder, "vocab.txt"))) return readBert(folder, null);
  if (existsSync(join(folder, "vocab.json"))) return readBytePairs(folder, null);
  const none = `neither ${TOKENIZER} nor vocab.txt nor vocab.json and merges.txt`;
  throw new CapfleetError("MODEL_INVALID", `${folder} has ${none}`);
}

const isBytePairs = ({ model }: TokenizerFiles["tokenizer.json"]) => model.merges !== undefined;

/**
 * Throws MODEL_INVALID where the folder's tokenizer is not the model's: it is of another kind, has an id that the model's
 * vocabulary has no place for, or lacks the ids that the model starts and ends texts with. BERT's must also put
 * [CLS] … [SEP] around a text, with `end` for [SEP]; null: the model's config does not say. It may have fewer ids than
 * the model: BLIP's often lack those that were added to BERT's, [DEC] and [ENC], and OPT's has room to a round number.
 */
export function checkVocabulary(folder: string, files: TokenizerFiles, text: Vocabulary): void {
  const why = unfit(files, text);
  if (why) throw new CapfleetError("MODEL_INVALID", `${folder}: the tokenizer ${why}`);
}

const KINDS = { bert: "BERT's (WordPiece)", bpe: "OPT's (byte-level BPE)" };

function unfit(files: TokenizerFiles, text: Vocabulary): string | null {
  const { added_tokens, model } = files[TOKENIZER];
  const kind = isBytePairs(files[TOKENIZER]) ? "bpe" : "bert";
  if (kind !== text.kind) return `is ${KINDS[kind]}, but the model's is ${KINDS[text.kind]}`;
  const ids = new Map([
    ...Object.entries(model.vocab),
    ...added_tokens.map(({ content, id }) => [content, id] as const),
  ]);
  for (const [token, id] of ids) {
    if (id < text.vocabulary) continue;
    return `has id ${id} (${token}), beyond the model's vocabulary: vocab_size in config.json is ${text.vocabulary}`;
  }
  return text.kind === "bert" ? unfitBert(files, ids, text.end) : unfitBytePairs(new Set(ids.values()), text);
}

function unfitBert(files: TokenizerFiles, tokens: ReadonlyMap<string, number>, end: number | null): string | null {
  const { unk_token, cls_token, sep_token } = bertConfigSchema.parse(files[CONFIG]);
  const missing = [unk_token, cls_token, sep_token].find((token) => !tokens.has(token));
  if (missing !== undefined) return `has no ${missing}`;
  try {
    const { ids } = new Texts(files).encode("", { maxTokens: Number.POSITIVE_INFINITY });
    if (ids.length !== 2) return `puts ${ids.length} tokens around a text; expected 2, [CLS] and [SEP]`;
    if (end === null || ids[1] === end) return null;
    return `ends texts with id ${ids[1]}; text_config.sep_token_id in config.json is ${end}`;
  } catch (cause) {
    return `can't be used: ${(cause as Error).message}`;
  }
}

function unfitBytePairs(ids: ReadonlySet<number>, { start, end }: { start: number; end: number }): string | null {
  if (!ids.has(start)) return `has no id ${start}, which is text_config.bos_token_id in config.json`;
  if (!ids.has(end)) return `has no id ${end}, which is text_config.eos_token_id in config.json`;
  return null;
}

/** Between ids and texts, with a tokenizer as `readTokenizer` returns it and the engine's folder has it. */
export class Texts {
  readonly #tokenizer: Tokenizer;
  readonly #cleanUp: boolean;

  constructor({ [TOKENIZER]: json, [CONFIG]: config }: TokenizerFiles) {
    // No config: the library would take more from it than transformers does.
    this.#tokenizer = new Tokenizer(json, {});
    this.#cleanUp = config.clean_up_tokenization_spaces ?? false;
    if (isBytePairs(json)) {
      this.#readBytes(json);
      this.#cleanUp &&= config.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output ?? false;
    }
    const bert = bertNormalizerSchema.safeParse(json.normalizer).data;
    if (bert) this.#tokenizer.normalizer = (text: string) => bertNormalize(text, bert);
  }

  static async load(folder: string): Promise<Texts> {
    return new Texts({
      [TOKENIZER]: await readJson(join(folder, TOKENIZER), tokenizerSchema),
      [CONFIG]: await readJson(join(folder, CONFIG), decodingSchema),
    });
  }

  /** BERT's: [CLS] … [SEP], `maxTokens` (at least 2) at most; `cut` says whether the text has lost its end. */
  encode(text: string, { maxTokens }: { maxTokens: number }): { ids: number[]; cut: boolean } {
    const { ids } = this.#tokenizer.encode(text);
    if (ids.length <= maxTokens) return { ids, cut: false };
    return { ids: [...ids.slice(0, maxTokens - 1), ids.at(-1)!], cut: true };
  }

  /** Without special tokens, other than those that are written in the text. */
  tokens(text: string): number[] {
    return this.#tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  /** Special tokens, and ids that the tokenizer does not know, are left out. */
  decode(ids: readonly number[]): string {
    const known = ids.filter((id) => this.#tokenizer.id_to_token(id) !== undefined);
    if (known.length === 0) return "";
    const options = { skip_special_tokens: true, clean_up_tokenization_spaces: this.#cleanUp };
    return strip(this.#tokenizer.decode(known, options));
  }

  /** In place of the library's own, for what wordsOf and textOf say. */
  #readBytes(json: TokenizerFiles["tokenizer.json"]): void {
    const { pre_tokenizer, model } = byteLevelSchema.parse(json);
    const tokens = new Set(Object.keys(json.model.vocab));
    const known = (character: string) => model.unk_token !== null || tokens.has(character);
    this.#tokenizer.pre_tokenizer = (text: string) =>
      wordsOf(pre_tokenizer.add_prefix_space && !text.startsWith(" ") ? ` ${text}` : text, known);
    this.#tokenizer.decoder = textOf;
  }
}

/** As Python's str.strip(): String.trim takes U+FEFF too, and leaves U+0085 and U+001C to U+001F. */
function strip(text: string): string {
  const isSpace = (at: number) => /\p{White_Space}/u.test(text[at]!) || "\x1C\x1D\x1E\x1F".includes(text[at]!);
  let [start, end] = [0, text.length];
  while (start < end && isSpace(start)) start++;
  while (end > start && isSpace(end - 1)) end--;
  return text.slice(start, end);
}

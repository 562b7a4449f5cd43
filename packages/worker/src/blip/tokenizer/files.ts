/** tokenizer.json and tokenizer_config.json: what is read of a checkpoint's, and what stands in an engine's folder. */
import * as z from "zod";

export const TOKENIZER = "tokenizer.json";
export const CONFIG = "tokenizer_config.json";

export const idSchema = z.number().int().min(0);
const pair = z.tuple([z.string(), z.string()]);
/** Before 2024 tokenizers saved a pair as "a b". */
const merge = z.union([
  pair,
  z
    .string()
    .regex(/^[^ ]+ [^ ]+$/, "expected two tokens with a space between them")
    .transform((line) => line.split(" ") as [string, string]),
]);

export const tokenizerSchema = z.looseObject({
  added_tokens: z.array(z.looseObject({ id: idSchema, content: z.string(), special: z.boolean() })).default([]),
  /** BPE has merges; WordPiece has none. */
  model: z.looseObject({ vocab: z.record(z.string(), idSchema), merges: z.array(merge).optional() }),
});
export type TokenizerJson = z.infer<typeof tokenizerSchema>;

/** What `decode` needs; transformers' default is false for both. */
export const decodingSchema = z.looseObject({
  clean_up_tokenization_spaces: z.boolean().nullish(),
  clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output: z.boolean().nullish(),
});

export interface TokenizerFiles {
  "tokenizer.json": TokenizerJson;
  "tokenizer_config.json": z.infer<typeof decodingSchema>;
}

const token = z.union([z.string().transform((content) => ({ content })), z.looseObject({ content: z.string() })]);
/** The text of a token, which is written as such or as an object with a `content`. */
export const contentSchema = token.transform(({ content }) => content);

/** `named`: what stands in fields such as `bos_token`; `extra`: in `additional_special_tokens` and the like. */
export function specialTokens(config: Record<string, unknown>) {
  const of = (names: RegExp) =>
    Object.entries(config)
      .filter(([name]) => names.test(name))
      // One token, a list of them, or an object of them by name.
      .flatMap(([, value]) => (token.safeParse(value).success ? [value] : Object.values(value ?? {})))
      .map((value) => token.safeParse(value).data)
      .filter((found) => found !== undefined);
  return { named: of(/_token$/), extra: of(/_special_tokens$/) };
}

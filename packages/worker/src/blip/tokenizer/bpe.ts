/**
 * OPT's tokenizer, byte-level BPE: as transformers' (5.18) AutoTokenizer makes it of a BLIP-2 checkpoint.
 *
 * GPT2Tokenizer, which public checkpoints name, takes vocabulary and merges of tokenizer.json or of vocab.json and
 * merges.txt, and everything else of tokenizer_config.json. Other classes take tokenizer.json as it is.
 *
 * Added tokens are listed in tokenizer_config.json (`added_tokens_decoder`); or, where it lists none, in
 * added_tokens.json and tokenizer.json, and then special_tokens_map.json counts as well. The ids in these lists do not
 * count: a token has the id that the vocabulary gives it, or else the next free one.
 */
import { join } from "node:path";
import { CapfleetError } from "@capfleet/shared/contract";
import * as z from "zod";
import { readJson, readOptionalJson, readOptionalText } from "../json.ts";
import type { TokenizerFiles, TokenizerJson } from "./files.ts";
import { CONFIG, decodingSchema, idSchema, specialTokens, TOKENIZER } from "./files.ts";

const off = z.literal(false).default(false);
/** @huggingface/tokenizers 0.2.0 would take `single_word` for false, and so does every public checkpoint. */
const addedSchema = z.looseObject({
  content: z.string(),
  special: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  single_word: off,
});
type Added = z.infer<typeof addedSchema>;

const configSchema = decodingSchema.extend({
  tokenizer_class: z.string().nullish(),
  add_prefix_space: z.boolean().default(false),
  added_tokens_decoder: z.record(z.string().regex(/^\d+$/), addedSchema).optional(),
  split_special_tokens: off,
});

/** What is read of a tokenizer.json that counts as it is: nothing else is in the way between texts and merges. */
export const byteLevelSchema = z.looseObject({
  normalizer: z.null(),
  pre_tokenizer: z.looseObject({
    type: z.literal("ByteLevel"),
    add_prefix_space: z.boolean().default(true),
    use_regex: z.literal(true).default(true),
  }),
  decoder: z.looseObject({ type: z.literal("ByteLevel") }),
  model: z.looseObject({
    dropout: z.null().default(null),
    unk_token: z.string().nullable().default(null),
    continuing_subword_prefix: z.literal("").nullish(),
    end_of_word_suffix: z.literal("").nullish(),
    fuse_unk: off,
    byte_fallback: off,
    ignore_merges: off,
  }),
});

/** GPT2Tokenizer's. */
const END_OF_TEXT = "<|endoftext|>";
const DEFAULTS = { bos_token: END_OF_TEXT, eos_token: END_OF_TEXT, unk_token: END_OF_TEXT };
/** In this order tokens that the vocabulary lacks get their ids. */
const NAMES = Object.fromEntries(
  ["bos", "eos", "unk", "sep", "pad", "cls", "mask"].map((name) => [`${name}_token`, null]),
);

/** Of `found`, the folder's tokenizer.json, or of its vocab.json and merges.txt. */
export async function readBytePairs(folder: string, found: TokenizerJson | null): Promise<TokenizerFiles> {
  const config = (await readOptionalJson(join(folder, CONFIG), configSchema)) ?? configSchema.parse({});
  const asItIs = found && !/^GPT2Tokenizer(Fast)?$/.test(config.tokenizer_class ?? "GPT2Tokenizer") ? found : null;
  const how = asItIs && (await readJson(join(folder, TOKENIZER), byteLevelSchema));

  const { vocab, merges = [] } = found?.model ?? (await readMerges(folder));
  const ids = new Map(Object.entries(vocab));
  checkMerges(folder, ids, merges);

  const { listed, fields } = await readAddedTokens(folder, config, found);
  const { named, extra } = specialTokens({ ...NAMES, ...(asItIs ? {} : DEFAULTS), ...fields });
  const special = new Set(named.map(({ content }) => content));
  const added = [
    ...(asItIs?.added_tokens ?? []).map((token) => addedToken(folder, token)),
    ...listed,
    ...[...named, ...extra].map((token) => addedToken(folder, { normalized: false, ...token, special: true })),
  ].map((token) => (special.has(token.content) ? { ...token, special: true } : token));

  const byteLevel = { type: "ByteLevel", trim_offsets: true, use_regex: true };
  const add_prefix_space = how?.pre_tokenizer.add_prefix_space ?? config.add_prefix_space;
  const json = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: withIds(added, ids),
    normalizer: null,
    pre_tokenizer: { ...byteLevel, add_prefix_space },
    // None: only ids without special tokens are asked for.
    post_processor: null,
    decoder: { ...byteLevel, add_prefix_space: true },
    model: { type: "BPE", unk_token: how?.model.unk_token ?? null, fuse_unk: false, vocab, merges },
  };
  return { [TOKENIZER]: json, [CONFIG]: config };
}

type Merge = readonly [string, string];

async function readMerges(folder: string): Promise<{ vocab: Record<string, number>; merges: [string, string][] }> {
  const vocab = await readJson(join(folder, "vocab.json"), z.record(z.string(), idSchema));
  const file = join(folder, "merges.txt");
  const text = await readOptionalText(file);
  if (text === null) throw new CapfleetError("MODEL_INVALID", `${file} is missing`);
  const merges: [string, string][] = [];
  for (const [number, line] of text.split(/\r?\n/).entries()) {
    // Only this is a comment: "# #" is a merge.
    if (line === "" || line.startsWith("#version")) continue;
    const [left, right, ...more] = line.split(" ");
    if (!left || !right || more.length > 0) {
      throw new CapfleetError(
        "MODEL_INVALID",
        `${file}: line ${number + 1} is not two tokens with a space between them`,
      );
    }
    merges.push([left, right]);
  }
  return { vocab, merges };
}

function checkMerges(folder: string, ids: ReadonlyMap<string, number>, merges: readonly Merge[]): void {
  for (const [left, right] of merges) {
    const missing = [left, right, left + right].find((token) => !ids.has(token));
    if (missing === undefined) continue;
    const merge = `${left} ${right}`;
    throw new CapfleetError("MODEL_INVALID", `${folder}: the tokenizer merges ${merge}, but has no token ${missing}`);
  }
}

/** The tokens that are listed, in the order of their ids; `fields` name some of them, and perhaps more. */
async function readAddedTokens(
  folder: string,
  config: z.infer<typeof configSchema>,
  found: TokenizerJson | null,
): Promise<{ listed: Added[]; fields: Record<string, unknown> }> {
  // An object has its keys in order where they are whole numbers.
  if (config.added_tokens_decoder) return { listed: Object.values(config.added_tokens_decoder), fields: config };

  const map = await readOptionalJson(join(folder, "special_tokens_map.json"), z.looseObject({}));
  const fields = { ...config, ...map };
  const more = await readOptionalJson(join(folder, "added_tokens.json"), z.record(z.string(), idSchema));
  // transformers forgets the file's additional_special_tokens at this point.
  const { additional_special_tokens } = config;
  const { named, extra } = specialTokens({ ...fields, additional_special_tokens });
  const special = new Set([...named, ...extra].map(({ content }) => content));
  const byId: Record<number, Added> = {};
  for (const [content, id] of Object.entries(more ?? {})) {
    byId[id] = addedToken(folder, { content, normalized: !special.has(content), special: special.has(content) });
  }
  for (const { id, ...token } of found?.added_tokens ?? []) byId[id] = addedToken(folder, token);
  return { listed: Object.values(byId), fields };
}

function addedToken(folder: string, token: { content: string; [flag: string]: unknown }): Added {
  const parsed = addedSchema.safeParse(token);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  const why = `${path.join(".")}: ${message}`;
  throw new CapfleetError("MODEL_INVALID", `${folder}: the tokenizer's token ${token.content}: ${why}`);
}

/** The first of each content counts. */
function withIds(tokens: readonly Added[], ids: ReadonlyMap<string, number>): TokenizerJson["added_tokens"] {
  const added = new Map<string, Added & { id: number }>();
  let next = ids.size;
  for (const token of tokens) {
    if (token.content === "" || added.has(token.content)) continue;
    const id = ids.get(token.content) ?? next;
    added.set(token.content, { ...token, id });
    next = Math.max(next, id + 1);
  }
  return [...added.values()];
}

/** BLIP-2 with OPT in its public geometry, or with fewer layers, with random weights. */
import {
  linear,
  type Named,
  norm,
  sizes,
  type Transformer,
  type Vision,
  visionTensors,
  writeCheckpoint,
} from "./write.ts";

export interface Blip2Geometry {
  vision: Vision;
  qformer: Transformer;
  queries: number;
  text: Transformer;
  vocabulary: number;
  positions: number;
}

/** Salesforce/blip2-opt-2.7b: ViT-g, Q-Former, OPT-2.7b. */
export const BLIP2_OPT: Blip2Geometry = {
  vision: { width: 1408, hidden: 6144, layers: 39, heads: 16, image: 224, patch: 14 },
  qformer: { width: 768, hidden: 3072, layers: 12, heads: 12 },
  queries: 32,
  text: { width: 2560, hidden: 10_240, layers: 32, heads: 32 },
  vocabulary: 50_304,
  positions: 2048,
};

/** The same layers, but fewer of them. */
export const BLIP2_REDUCED: Blip2Geometry = {
  ...BLIP2_OPT,
  vision: { ...BLIP2_OPT.vision, layers: 10 },
  text: { ...BLIP2_OPT.text, layers: 8 },
};

/** Queries look at the image in every second layer of the Q-Former. */
const FREQUENCY = 2;
/** OPT's table of positions has two rows before the first. */
const UNUSED_POSITIONS = 2;
const END = 50_118;
const IMAGE = 50_265;

/** In two files, as the public one. */
export async function blip2Checkpoint(folder: string, geometry: Blip2Geometry): Promise<void> {
  const { vision, qformer, text, queries, vocabulary, positions } = geometry;
  const config = {
    architectures: ["Blip2ForConditionalGeneration"],
    model_type: "blip-2",
    num_query_tokens: queries,
    image_token_index: IMAGE,
    vision_config: { ...sizes(vision), image_size: vision.image, patch_size: vision.patch, layer_norm_eps: 1e-6 },
    qformer_config: { ...sizes(qformer), cross_attention_frequency: FREQUENCY },
    text_config: {
      model_type: "opt",
      hidden_size: text.width,
      ffn_dim: text.hidden,
      num_hidden_layers: text.layers,
      num_attention_heads: text.heads,
      word_embed_proj_dim: text.width,
      vocab_size: vocabulary,
      max_position_embeddings: positions,
      bos_token_id: 2,
      eos_token_id: END,
      pad_token_id: 1,
    },
  };
  const files = {
    "config.json": config,
    "preprocessor_config.json": { size: { height: vision.image, width: vision.image } },
    "processor_config.json": { num_query_tokens: queries, processor_class: "Blip2Processor" },
    "tokenizer_config.json": {
      tokenizer_class: "GPT2Tokenizer",
      bos_token: "</s>",
      eos_token: "</s>",
      pad_token: "<pad>",
      unk_token: "</s>",
    },
    "vocab.json": Object.fromEntries(words().map((word, id) => [word, id])),
    "merges.txt": "#version: 0.2\n",
  };
  await writeCheckpoint(folder, { files, tensors: [...tensors(geometry)], shards: 2 });
}

/** OPT's special tokens at their places, the letters that a byte can be, and made-up words. */
function words(): string[] {
  const letters = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i));
  const all = ["<s>", "<pad>", "</s>", "<unk>", "Ġ", ...letters];
  return Array.from({ length: IMAGE }, (_, id) => all[id] ?? (id === END ? "Ċ" : `word${id}`));
}

function* tensors({ vision, qformer, queries, text, vocabulary, positions }: Blip2Geometry): Generator<Named> {
  yield* visionTensors(vision);
  yield ["query_tokens", [1, queries, qformer.width]];
  yield* norm("qformer.layernorm", qformer.width);
  for (let i = 0; i < qformer.layers; i++) {
    const layer = `qformer.encoder.layer.${i}`;
    yield* attention(`${layer}.attention`, qformer.width, qformer.width);
    if (i % FREQUENCY === 0) yield* attention(`${layer}.crossattention`, qformer.width, vision.width);
    yield* linear(`${layer}.intermediate_query.dense`, qformer.width, qformer.hidden);
    yield* linear(`${layer}.output_query.dense`, qformer.hidden, qformer.width);
    yield* norm(`${layer}.output_query.LayerNorm`, qformer.width);
  }
  yield* linear("language_projection", qformer.width, text.width);
  const decoder = "language_model.model.decoder";
  yield [`${decoder}.embed_tokens.weight`, [vocabulary, text.width]];
  yield [`${decoder}.embed_positions.weight`, [positions + UNUSED_POSITIONS, text.width]];
  for (let i = 0; i < text.layers; i++) {
    const layer = `${decoder}.layers.${i}`;
    for (const name of ["q_proj", "k_proj", "v_proj", "out_proj"]) {
      yield* linear(`${layer}.self_attn.${name}`, text.width, text.width);
    }
    yield* norm(`${layer}.self_attn_layer_norm`, text.width);
    yield* linear(`${layer}.fc1`, text.width, text.hidden);
    yield* linear(`${layer}.fc2`, text.hidden, text.width);
    yield* norm(`${layer}.final_layer_norm`, text.width);
  }
  yield* norm(`${decoder}.final_layer_norm`, text.width);
}

function* attention(name: string, width: number, inputs: number): Generator<Named> {
  yield* linear(`${name}.attention.query`, width, width);
  yield* linear(`${name}.attention.key`, inputs, width);
  yield* linear(`${name}.attention.value`, inputs, width);
  yield* linear(`${name}.output.dense`, width, width);
  yield* norm(`${name}.output.LayerNorm`, width);
}

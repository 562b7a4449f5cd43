/** BLIP in its public geometries, with random weights. */
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

export interface Geometry {
  vision: Vision;
  text: Transformer;
  vocabulary: number;
  positions: number;
}

/** Salesforce/blip-image-captioning-base, blip-vqa-base and blip-itm-base-coco. */
const BASE: Transformer = { width: 768, hidden: 3072, layers: 12, heads: 12 };
export const BLIP_BASE: Geometry = {
  vision: { ...BASE, image: 384, patch: 16 },
  text: BASE,
  vocabulary: 30524,
  positions: 512,
};

export type Architecture = "BlipForConditionalGeneration" | "BlipForQuestionAnswering" | "BlipForImageTextRetrieval";

const DIMENSIONS = 256;

export async function blipCheckpoint(folder: string, architecture: Architecture, geometry: Geometry): Promise<void> {
  const { vision, text, vocabulary, positions } = geometry;
  const ids = { bos_token_id: vocabulary - 2, sep_token_id: 102, pad_token_id: 0 };
  const config = {
    architectures: [architecture],
    model_type: "blip",
    image_text_hidden_size: DIMENSIONS,
    vision_config: { ...sizes(vision), image_size: vision.image, patch_size: vision.patch },
    text_config: { ...sizes(text), ...ids, vocab_size: vocabulary, max_position_embeddings: positions },
  };
  const files = {
    "config.json": config,
    "preprocessor_config.json": { size: { height: vision.image, width: vision.image } },
    "tokenizer_config.json": { tokenizer_class: "BertTokenizer", do_lower_case: true },
    "vocab.txt": `${words(vocabulary - 2).join("\n")}\n`,
  };
  await writeCheckpoint(folder, { files, tensors: [...tensors(architecture, geometry)], shards: 1 });
}

/** BERT's special tokens at their places; the rest are made-up words. */
function words(count: number): string[] {
  const special: Record<number, string> = { 0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]" };
  return Array.from({ length: count }, (_, id) => special[id] ?? `word${id}`);
}

function* tensors(architecture: Architecture, geometry: Geometry): Generator<Named> {
  const { vision, text } = geometry;
  yield* visionTensors(vision);
  if (architecture !== "BlipForConditionalGeneration") yield* bert("text_encoder", geometry);
  if (architecture === "BlipForImageTextRetrieval") {
    yield* linear("vision_proj", vision.width, DIMENSIONS);
    yield* linear("text_proj", text.width, DIMENSIONS);
    yield* linear("itm_head", text.width, 2);
  } else {
    yield* bert("text_decoder.bert", geometry);
    yield ["text_decoder.cls.predictions.bias", [geometry.vocabulary]];
    yield* linear("text_decoder.cls.predictions.transform.dense", text.width, text.width);
    yield* norm("text_decoder.cls.predictions.transform.LayerNorm", text.width);
  }
}

function* bert(module: string, { text, vision, vocabulary, positions }: Geometry): Generator<Named> {
  yield [`${module}.embeddings.word_embeddings.weight`, [vocabulary, text.width]];
  yield [`${module}.embeddings.position_embeddings.weight`, [positions, text.width]];
  yield* norm(`${module}.embeddings.LayerNorm`, text.width);
  for (let i = 0; i < text.layers; i++) {
    const layer = `${module}.encoder.layer.${i}`;
    for (const [attention, width] of [
      ["attention", text.width],
      ["crossattention", vision.width],
    ] as const) {
      yield* linear(`${layer}.${attention}.self.query`, text.width, text.width);
      yield* linear(`${layer}.${attention}.self.key`, width, text.width);
      yield* linear(`${layer}.${attention}.self.value`, width, text.width);
      yield* linear(`${layer}.${attention}.output.dense`, text.width, text.width);
      yield* norm(`${layer}.${attention}.output.LayerNorm`, text.width);
    }
    yield* linear(`${layer}.intermediate.dense`, text.width, text.hidden);
    yield* linear(`${layer}.output.dense`, text.hidden, text.width);
    yield* norm(`${layer}.output.LayerNorm`, text.width);
  }
}

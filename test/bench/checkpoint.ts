/**
 * Checkpoints with random weights in a given geometry, written tensor by tensor: the speed of a transformer does not
 * depend on what its weights say, and public checkpoints need not be downloaded.
 */
import { createWriteStream } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

export interface Geometry {
  image: number;
  patch: number;
  vision: Transformer;
  text: Transformer;
  vocabulary: number;
  positions: number;
}

interface Transformer {
  width: number;
  hidden: number;
  layers: number;
  heads: number;
}

/** Salesforce/blip-image-captioning-base, blip-vqa-base and blip-itm-base-coco. */
const BASE: Transformer = { width: 768, hidden: 3072, layers: 12, heads: 12 };
export const BLIP_BASE: Geometry = {
  image: 384,
  patch: 16,
  vision: BASE,
  text: BASE,
  vocabulary: 30524,
  positions: 512,
};

export type Architecture = "BlipForConditionalGeneration" | "BlipForQuestionAnswering" | "BlipForImageTextRetrieval";

const DIMENSIONS = 256;

/** Writes config, tokenizer, image processor and model.safetensors (float32) into `folder`. */
export async function randomCheckpoint(folder: string, architecture: Architecture, geometry: Geometry): Promise<void> {
  await mkdir(folder, { recursive: true });
  const { image, patch, vision, text, vocabulary, positions } = geometry;
  const json = (name: string, content: object) => writeFile(join(folder, name), JSON.stringify(content, null, 2));
  const transformer = ({ width, hidden, layers, heads }: Transformer) => ({
    hidden_size: width,
    intermediate_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
  });
  const ids = { bos_token_id: vocabulary - 2, sep_token_id: 102, pad_token_id: 0 };
  await json("config.json", {
    architectures: [architecture],
    model_type: "blip",
    image_text_hidden_size: DIMENSIONS,
    vision_config: { ...transformer(vision), image_size: image, patch_size: patch },
    text_config: { ...transformer(text), ...ids, vocab_size: vocabulary, max_position_embeddings: positions },
  });
  await json("preprocessor_config.json", { size: { height: image, width: image } });
  await json("tokenizer_config.json", { tokenizer_class: "BertTokenizer", do_lower_case: true });
  await writeFile(join(folder, "vocab.txt"), `${words(vocabulary - 2).join("\n")}\n`);
  await writeTensors(join(folder, "model.safetensors"), [...tensors(architecture, geometry)]);
}

/** BERT's special tokens at their places; the rest are made-up words. */
function words(count: number): string[] {
  const special: Record<number, string> = { 0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]" };
  return Array.from({ length: count }, (_, id) => special[id] ?? `word${id}`);
}

type Named = [name: string, shape: number[]];

function* tensors(architecture: Architecture, geometry: Geometry): Generator<Named> {
  const { vision, text, patch, image } = geometry;
  yield ["vision_model.embeddings.class_embedding", [1, 1, vision.width]];
  yield ["vision_model.embeddings.position_embedding", [1, 1 + Math.floor(image / patch) ** 2, vision.width]];
  yield ["vision_model.embeddings.patch_embedding.weight", [vision.width, 3, patch, patch]];
  yield ["vision_model.embeddings.patch_embedding.bias", [vision.width]];
  for (let i = 0; i < vision.layers; i++) {
    const layer = `vision_model.encoder.layers.${i}`;
    yield* norm(`${layer}.layer_norm1`, vision.width);
    yield* norm(`${layer}.layer_norm2`, vision.width);
    yield* linear(`${layer}.self_attn.qkv`, vision.width, 3 * vision.width);
    yield* linear(`${layer}.self_attn.projection`, vision.width, vision.width);
    yield* linear(`${layer}.mlp.fc1`, vision.width, vision.hidden);
    yield* linear(`${layer}.mlp.fc2`, vision.hidden, vision.width);
  }
  yield* norm("vision_model.post_layernorm", vision.width);
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

function* linear(name: string, inputs: number, outputs: number): Generator<Named> {
  yield [`${name}.weight`, [outputs, inputs]];
  yield [`${name}.bias`, [outputs]];
}

function* norm(name: string, width: number): Generator<Named> {
  yield [`${name}.weight`, [width]];
  yield [`${name}.bias`, [width]];
}

async function writeTensors(file: string, all: readonly Named[]): Promise<void> {
  const sizes = all.map(([, shape]) => 4 * shape.reduce((product, size) => product * size, 1));
  let end = 0;
  const header: Record<string, object> = {};
  for (const [i, [name, shape]] of all.entries()) {
    header[name] = { dtype: "F32", shape, data_offsets: [end, end + sizes[i]!] };
    end += sizes[i]!;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const random = lehmer(1);
  async function* bytes() {
    yield Buffer.concat([length, text]);
    for (const [i, [name]] of all.entries()) yield* randomBytes(name, sizes[i]! / 4, random);
  }
  await pipeline(Readable.from(bytes()), createWriteStream(file));
}

/** As models are initialized: weights around 0 with a standard deviation of 0.02, norms near the identity. */
function* randomBytes(name: string, count: number, random: () => number): Generator<Uint8Array> {
  const centre = /norm\d?\.weight$/i.test(name) ? 1 : 0;
  for (let done = 0; done < count; ) {
    const chunk = new Float32Array(Math.min(1 << 20, count - done));
    // Uniform with that standard deviation: the shape does not matter here.
    for (let i = 0; i < chunk.length; i++) chunk[i] = centre + (random() - 0.5) * 0.02 * Math.sqrt(12);
    yield new Uint8Array(chunk.buffer);
    done += chunk.length;
  }
}

/** Numbers from 0 to 1, the same for the same seed (Lehmer's generator, as in C++'s minstd_rand). */
function lehmer(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48_271) % 0x7fffffff;
    return state / 0x7fffffff;
  };
}

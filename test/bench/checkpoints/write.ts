/**
 * Checkpoints with random weights in a given geometry, written tensor by tensor: the speed of a transformer does not
 * depend on what its weights say, and public checkpoints need not be downloaded.
 */
import { createWriteStream } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

export interface Transformer {
  width: number;
  hidden: number;
  layers: number;
  heads: number;
}

export interface Vision extends Transformer {
  image: number;
  patch: number;
}

export type Named = [name: string, shape: number[]];

export interface Content {
  /** The folder's small files. */
  files: Record<string, string | object>;
  tensors: readonly Named[];
  /** In how many safetensors files the tensors are. */
  shards: number;
}

/** Writes a checkpoint, float32, into `folder`. */
export async function writeCheckpoint(folder: string, { files, tensors, shards }: Content): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(folder, name), typeof content === "string" ? content : JSON.stringify(content, null, 2));
  }
  const random = lehmer(1);
  if (shards === 1) return writeTensors(join(folder, "model.safetensors"), tensors, random);
  const weight_map: Record<string, string> = {};
  const number = (n: number) => String(n).padStart(5, "0");
  for (let i = 0; i < shards; i++) {
    const some = tensors.slice((tensors.length * i) / shards, (tensors.length * (i + 1)) / shards);
    const file = `model-${number(i + 1)}-of-${number(shards)}.safetensors`;
    for (const [name] of some) weight_map[name] = file;
    await writeTensors(join(folder, file), some, random);
  }
  await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map }));
}

export function* linear(name: string, inputs: number, outputs: number): Generator<Named> {
  yield [`${name}.weight`, [outputs, inputs]];
  yield [`${name}.bias`, [outputs]];
}

export function* norm(name: string, width: number): Generator<Named> {
  yield [`${name}.weight`, [width]];
  yield [`${name}.bias`, [width]];
}

/** The vision transformer of BLIP and BLIP-2. */
export function* visionTensors({ width, hidden, layers, image, patch }: Vision): Generator<Named> {
  yield ["vision_model.embeddings.class_embedding", [1, 1, width]];
  yield ["vision_model.embeddings.position_embedding", [1, 1 + Math.floor(image / patch) ** 2, width]];
  yield ["vision_model.embeddings.patch_embedding.weight", [width, 3, patch, patch]];
  yield ["vision_model.embeddings.patch_embedding.bias", [width]];
  for (let i = 0; i < layers; i++) {
    const layer = `vision_model.encoder.layers.${i}`;
    yield* norm(`${layer}.layer_norm1`, width);
    yield* norm(`${layer}.layer_norm2`, width);
    yield* linear(`${layer}.self_attn.qkv`, width, 3 * width);
    yield* linear(`${layer}.self_attn.projection`, width, width);
    yield* linear(`${layer}.mlp.fc1`, width, hidden);
    yield* linear(`${layer}.mlp.fc2`, hidden, width);
  }
  yield* norm("vision_model.post_layernorm", width);
}

/** A transformer's sizes, as config.json calls them. */
export const sizes = ({ width, hidden, layers, heads }: Transformer) => ({
  hidden_size: width,
  intermediate_size: hidden,
  num_hidden_layers: layers,
  num_attention_heads: heads,
});

async function writeTensors(file: string, all: readonly Named[], random: () => number): Promise<void> {
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

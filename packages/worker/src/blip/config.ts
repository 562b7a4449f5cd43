/**
 * What a checkpoint's JSON files say of the model: config.json and the image processor's, checked. A field that is
 * absent has the default that transformers' BlipTextConfig, BlipVisionConfig and BlipImageProcessor give it.
 */
import { join } from "node:path";
import { CapfleetError, type Task } from "@capfleet/shared/contract";
import { ARCHITECTURES } from "@capfleet/shared/models";
import * as z from "zod";
import { readJson, readOptionalJson } from "./json.ts";

export interface VisionConfig {
  width: number;
  /** Width of the MLP's middle. */
  hidden: number;
  layers: number;
  heads: number;
  epsilon: number;
  /** Width and height of the image, in pixels. */
  size: number;
  /** Width and height of a patch, in pixels. */
  patch: number;
  /** Patches per row and per column. */
  grid: number;
}

export interface TextConfig {
  width: number;
  hidden: number;
  layers: number;
  heads: number;
  epsilon: number;
  vocabulary: number;
  /** The most tokens that a text can have, the start token included. */
  positions: number;
  /** Token ids: what a caption starts with, what ends it, what follows the end. */
  start: number;
  end: number;
  pad: number;
}

/** How a byte becomes the model's input: byte · scale + shift, per channel R, G, B. */
export interface Preprocessing {
  scale: readonly number[];
  shift: readonly number[];
}

export interface ModelConfig {
  architecture: string;
  tasks: readonly Task[];
  vision: VisionConfig;
  text: TextConfig;
  preprocessing: Preprocessing;
  /** Of the space in which images and texts are compared; matters to BlipForImageTextRetrieval only. */
  dimensions: number;
}

const size = z.number().int().min(1);
const tokenId = z.number().int().min(0);
const activation = z.string().default("gelu");

const configSchema = z.object({
  architectures: z.array(z.string()).min(1),
  image_text_hidden_size: size.default(256),
  vision_config: z
    .object({
      hidden_size: size.default(768),
      intermediate_size: size.default(3072),
      num_hidden_layers: size.default(12),
      num_attention_heads: size.default(12),
      image_size: size.default(384),
      patch_size: size.default(16),
      hidden_act: activation,
      layer_norm_eps: z.number().min(0).default(1e-5),
    })
    .prefault({}),
  text_config: z
    .object({
      vocab_size: size.default(30524),
      hidden_size: size.default(768),
      intermediate_size: size.default(3072),
      num_hidden_layers: size.default(12),
      num_attention_heads: size.default(8),
      max_position_embeddings: size.default(512),
      hidden_act: activation,
      layer_norm_eps: z.number().min(0).default(1e-12),
      bos_token_id: tokenId.default(30522),
      sep_token_id: tokenId.default(102),
      pad_token_id: tokenId.default(0),
    })
    .prefault({}),
});

const channels = z.array(z.number()).length(3);

const preprocessorSchema = z.object({
  /** An object, or one number for both in older checkpoints. */
  size: z
    .union([size.transform((side) => ({ height: side, width: side })), z.object({ height: size, width: size })])
    .default({ height: 384, width: 384 }),
  resample: z.number().default(3),
  do_rescale: z.boolean().default(true),
  rescale_factor: z.number().default(1 / 255),
  do_normalize: z.boolean().default(true),
  image_mean: channels.default([0.48145466, 0.4578275, 0.40821073]),
  image_std: z.array(z.number().positive()).length(3).default([0.26862954, 0.26130258, 0.27577711]),
});
const BICUBIC = 3;

/**
 * Throws MODEL_INVALID (a file is missing, or a field is not what it must be) and MODEL_UNSUPPORTED (sound, but not
 * something that capfleet runs). Both name the file and the field.
 */
export async function readConfig(folder: string): Promise<ModelConfig> {
  const file = join(folder, "config.json");
  const { architectures, vision_config, text_config, ...more } = await readJson(file, configSchema);
  const architecture = architectures[0]!;
  const tasks = tasksOf(architecture, file);
  const vision = visionConfig(vision_config, `${file}: vision_config`);
  const text = textConfig(text_config, `${file}: text_config`);
  const preprocessing = await readPreprocessing(folder, vision.size);
  return { architecture, tasks, vision, text, preprocessing, dimensions: more.image_text_hidden_size };
}

function tasksOf(architecture: string, file: string): readonly Task[] {
  const tasks = ARCHITECTURES[architecture];
  if (tasks) return tasks;
  const supported = Object.entries(ARCHITECTURES).map(([name, tasks]) => `${name} (${tasks.join(", ")})`);
  const message = `${file}: architecture ${architecture} is not known; supported: ${supported.join(", ")}`;
  throw new CapfleetError("MODEL_UNSUPPORTED", message);
}

function visionConfig(config: z.infer<typeof configSchema>["vision_config"], where: string): VisionConfig {
  const { hidden_size: width, num_attention_heads: heads, image_size, patch_size } = config;
  checkHeads(width, heads, where);
  checkActivation(config.hidden_act, where);
  if (patch_size > image_size) invalid(`${where}.patch_size is ${patch_size}, more than image_size, ${image_size}`);
  return {
    width,
    heads,
    hidden: config.intermediate_size,
    layers: config.num_hidden_layers,
    epsilon: config.layer_norm_eps,
    size: image_size,
    patch: patch_size,
    grid: Math.floor(image_size / patch_size),
  };
}

function textConfig(config: z.infer<typeof configSchema>["text_config"], where: string): TextConfig {
  const { hidden_size: width, num_attention_heads: heads, vocab_size: vocabulary } = config;
  checkHeads(width, heads, where);
  checkActivation(config.hidden_act, where);
  for (const field of ["bos_token_id", "sep_token_id", "pad_token_id"] as const) {
    if (config[field] >= vocabulary) invalid(`${where}.${field} is ${config[field]}, beyond vocab_size, ${vocabulary}`);
  }
  return {
    width,
    heads,
    vocabulary,
    hidden: config.intermediate_size,
    layers: config.num_hidden_layers,
    epsilon: config.layer_norm_eps,
    positions: config.max_position_embeddings,
    start: config.bos_token_id,
    end: config.sep_token_id,
    pad: config.pad_token_id,
  };
}

async function readPreprocessing(folder: string, imageSize: number): Promise<Preprocessing> {
  const { file, config } = await readProcessor(folder);
  const { width, height } = config.size;
  if (width !== imageSize || height !== imageSize) {
    invalid(`${file}: size is ${width} x ${height}, but vision_config.image_size in config.json is ${imageSize}`);
  }
  if (config.resample !== BICUBIC) {
    throw new CapfleetError(
      "MODEL_UNSUPPORTED",
      `${file}: resample is ${config.resample}; only 3 (bicubic) is supported`,
    );
  }
  const rescale = config.do_rescale ? config.rescale_factor : 1;
  const mean = config.do_normalize ? config.image_mean : [0, 0, 0];
  const std = config.do_normalize ? config.image_std : [1, 1, 1];
  return { scale: std.map((s) => rescale / s), shift: mean.map((m, i) => -m / std[i]!) };
}

/** transformers 5 keeps the image processor in processor_config.json; what it finds there comes first. */
async function readProcessor(folder: string): Promise<{ file: string; config: z.infer<typeof preprocessorSchema> }> {
  const newer = join(folder, "processor_config.json");
  const found = await readOptionalJson(newer, z.object({ image_processor: preprocessorSchema.optional() }));
  if (found?.image_processor) return { file: `${newer}: image_processor`, config: found.image_processor };
  const file = join(folder, "preprocessor_config.json");
  return { file, config: await readJson(file, preprocessorSchema) };
}

function checkHeads(width: number, heads: number, where: string): void {
  if (width % heads !== 0) invalid(`${where}: hidden_size ${width} is not a multiple of num_attention_heads ${heads}`);
}

function checkActivation(activation: string, where: string): void {
  if (activation === "gelu") return;
  throw new CapfleetError("MODEL_UNSUPPORTED", `${where}.hidden_act is ${activation}; only gelu is supported`);
}

function invalid(message: string): never {
  throw new CapfleetError("MODEL_INVALID", message);
}

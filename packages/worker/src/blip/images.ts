/**
 * What a checkpoint's JSON files say of the images that its model sees: `vision_config` of config.json and the image
 * processor's settings, checked. A field that is absent has the default that transformers gives it.
 */
import { join } from "node:path";
import { CapfleetError } from "@capfleet/shared/contract";
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

/** How a byte becomes the model's input: byte · scale + shift, per channel R, G, B. */
export interface Preprocessing {
  scale: readonly number[];
  shift: readonly number[];
}

export const size = z.number().int().min(1);
export const tokenId = z.number().int().min(0);
export const epsilon = z.number().min(0);

/** `vision_config`, with a class's defaults. */
export const visionSchema = (defaults: {
  width: number;
  hidden: number;
  layers: number;
  heads: number;
  size: number;
  patch: number;
  epsilon: number;
}) =>
  z
    .object({
      hidden_size: size.default(defaults.width),
      intermediate_size: size.default(defaults.hidden),
      num_hidden_layers: size.default(defaults.layers),
      num_attention_heads: size.default(defaults.heads),
      image_size: size.default(defaults.size),
      patch_size: size.default(defaults.patch),
      hidden_act: z.string().default("gelu"),
      layer_norm_eps: epsilon.default(defaults.epsilon),
      qkv_bias: z.boolean().default(true),
    })
    .prefault({});

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

/** `where`: what errors call the config. Throws MODEL_INVALID, MODEL_UNSUPPORTED. */
export function visionConfig(config: z.infer<ReturnType<typeof visionSchema>>, where: string): VisionConfig {
  const { hidden_size: width, num_attention_heads: heads, image_size, patch_size } = config;
  checkHeads(width, heads, where);
  checkActivation(config.hidden_act, `${where}.hidden_act`);
  if (!config.qkv_bias) unsupported(`${where}.qkv_bias is false; only true is supported`);
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

/** Throws MODEL_INVALID, MODEL_UNSUPPORTED, where the images' size is not the model's, or as `readJson`. */
export async function readPreprocessing(folder: string, imageSize: number): Promise<Preprocessing> {
  const { file, config } = await readProcessor(folder);
  const { width, height } = config.size;
  if (width !== imageSize || height !== imageSize) {
    invalid(`${file}: size is ${width} x ${height}, but vision_config.image_size in config.json is ${imageSize}`);
  }
  if (config.resample !== BICUBIC) {
    unsupported(`${file}: resample is ${config.resample}; only 3 (bicubic) is supported`);
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

export function checkHeads(width: number, heads: number, where: string): void {
  if (width % heads !== 0) invalid(`${where}: hidden_size ${width} is not a multiple of num_attention_heads ${heads}`);
}

/** `field`: its path, for the message. */
export function checkActivation(activation: string, field: string, supported = "gelu"): void {
  if (activation !== supported) unsupported(`${field} is ${activation}; only ${supported} is supported`);
}

export function invalid(message: string): never {
  throw new CapfleetError("MODEL_INVALID", message);
}

export function unsupported(message: string): never {
  throw new CapfleetError("MODEL_UNSUPPORTED", message);
}

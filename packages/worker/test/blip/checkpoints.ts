/** Checkpoints to test with: copies of the parity cases that a test may damage, and safetensors files made to measure. */
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { EngineRef } from "@capfleet/shared/contract";
import sharp from "sharp";

const PARITY = fileURLToPath(new URL("../../../../test/parity/", import.meta.url));
export const PARITY_CASES = join(PARITY, "cases");
const PIXELS = join(PARITY, "pixels");

export const ref: EngineRef = { model: "model", digest: "digest", checkpoint: "checkpoint", precision: "fp32" };

/** A folder that is gone at the end of the block. */
export class Folder {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static async make(): Promise<Folder> {
    return new Folder(await mkdtemp(join(tmpdir(), "capfleet-blip-")));
  }

  /** With a copy of a parity case in it, as `checkpoint`. */
  static async withCheckpoint(name: string): Promise<Folder> {
    const folder = await Folder.make();
    await cp(join(PARITY_CASES, name), folder.at("checkpoint"), { recursive: true });
    return folder;
  }

  at(...names: string[]): string {
    return join(this.path, ...names);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

export interface TestTensor {
  dtype: string;
  shape: number[];
  bytes: Uint8Array;
}

export function safetensors(tensors: Record<string, TestTensor>): Uint8Array {
  let end = 0;
  const header: Record<string, object> = { __metadata__: { format: "pt" } };
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [end, end + bytes.length] };
    end += bytes.length;
  }
  const json = JSON.stringify(header);
  return Buffer.concat([
    headerLength(Buffer.byteLength(json)),
    Buffer.from(json),
    ...Object.values(tensors).map((t) => t.bytes),
  ]);
}

export function headerLength(length: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(length));
  return bytes;
}

/** Changes the tensors of a checkpoint's model.safetensors. */
export async function editTensors(
  checkpoint: string,
  edit: (tensors: Record<string, TestTensor>) => void,
): Promise<void> {
  const file = join(checkpoint, "model.safetensors");
  const content = await readFile(file);
  const dataAt = 8 + Number(content.readBigUInt64LE());
  const header = JSON.parse(content.toString("utf8", 8, dataAt)) as Record<string, never>;
  const tensors: Record<string, TestTensor> = {};
  for (const [name, { dtype, shape, data_offsets }] of Object.entries<{
    dtype: string;
    shape: number[];
    data_offsets: [number, number];
  }>(header)) {
    if (name === "__metadata__") continue;
    const [begin, end] = data_offsets;
    tensors[name] = { dtype, shape, bytes: content.subarray(dataAt + begin, dataAt + end) };
  }
  edit(tensors);
  await writeFile(file, safetensors(tensors));
}

// biome-ignore lint/suspicious/noExplicitAny: JSON of any shape
export async function editJson(file: string, edit: (content: any) => void): Promise<void> {
  const content: unknown = JSON.parse(await readFile(file, "utf8"));
  edit(content);
  await writeFile(file, JSON.stringify(content));
}

export interface Golden {
  id: string;
  /** With the start token first. */
  ids: number[];
  text: string;
  score: number;
}

/** transformers' greedy captions, up to 20 tokens, of the images that a captioning case has. */
export async function readGolden(checkpoint: string): Promise<Golden[]> {
  const { text_config } = await readConfig(checkpoint);
  const lines = (await readFile(join(checkpoint, "golden.jsonl"), "utf8")).trimEnd().split("\n");
  const rows = lines.map((line) => JSON.parse(line) as { id: string; task: object; captions: Golden[] });
  const greedy = JSON.stringify({ name: "caption", decoding: {} });
  return rows
    .filter(({ task }) => JSON.stringify(task) === greedy)
    .map(({ id, captions: [caption] }) => ({ ...caption!, id, ids: [text_config.bos_token_id, ...caption!.ids] }));
}

/** uint8 RGB of the images that transformers saw, in the checkpoint's size, one after the other. */
export async function readPixels(checkpoint: string, ids: readonly string[]): Promise<Uint8Array> {
  const { vision_config } = await readConfig(checkpoint);
  // From memory: other tests of the same process may have had sharp set up so that it opens no path.
  const images = ids.map(async (id) => {
    const png = await readFile(join(PIXELS, `${vision_config.image_size}`, `${id}.png`));
    return sharp(png).removeAlpha().raw().toBuffer();
  });
  return Buffer.concat(await Promise.all(images));
}

async function readConfig(checkpoint: string) {
  return JSON.parse(await readFile(join(checkpoint, "config.json"), "utf8")) as {
    text_config: { bos_token_id: number };
    vision_config: { image_size: number };
  };
}

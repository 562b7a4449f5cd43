/** A compiled engine, loaded on a device. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { CapfleetError, needsImage, type TaskSpec } from "@capfleet/shared/contract";
import { Tensor } from "onnxruntime-node";
import type { Engine, EngineInfo, Item, Output } from "../engine/engine.ts";
import { ENGINE_FILE, type EngineFile, engineFileSchema, WEIGHTS_FILE } from "./folder.ts";
import { readJson } from "./json.ts";
import { engineFailed, type SessionSettings, Sessions, type Tensors } from "./sessions.ts";
import { caption } from "./tasks/caption.ts";
import { embedImages, embedTexts, itc, itm } from "./tasks/compare.ts";
import type { Model } from "./tasks/model.ts";
import { vqa } from "./tasks/vqa.ts";
import { concat } from "./tensors.ts";
import { Texts } from "./tokenizer.ts";

/** Images that are labelled together: on a CPU the token loop gains nothing from more; see docs/performance.md. */
const BATCH = 8;
/** Images that go through the vision encoder together. On a CPU one alone is fastest: it stays in the caches. */
const VISION_BATCH = { cpu: 1, cuda: BATCH };

/**
 * Loads the engine in `engineDir`. Throws ENGINE_FAILED; DEVICE_UNAVAILABLE where the device can't be had;
 * INVALID_OPTION where there is no device of that name, or 8 bits are asked of a GPU.
 */
export async function loadEngine(engineDir: string, settings: SessionSettings): Promise<Engine> {
  const file = await readEngine(engineDir).catch((thrown: unknown) => {
    throw engineFailed(`the engine in ${engineDir} can't be loaded`, thrown);
  });
  const { precision } = file.ref;
  if (precision.startsWith("int") && settings.device !== "cpu") {
    const message = `${precision} runs on the CPU only; on ${settings.device} use fp16 or fp32`;
    throw new CapfleetError("INVALID_OPTION", message);
  }
  const texts = await Texts.load(engineDir);
  const sessions = await Sessions.open(engineDir, settings);
  return new LoadedEngine({ file, sessions, texts }, settings.device === "cpu" ? VISION_BATCH.cpu : VISION_BATCH.cuda);
}

async function readEngine(engineDir: string): Promise<EngineFile> {
  const file = await readJson(join(engineDir, ENGINE_FILE), engineFileSchema);
  const { size } = await stat(join(engineDir, WEIGHTS_FILE));
  if (size === file.weights) return file;
  throw new CapfleetError("ENGINE_FAILED", `${WEIGHTS_FILE} has ${size} bytes, expected ${file.weights}`);
}

class LoadedEngine implements Engine {
  readonly info: EngineInfo;
  readonly #model: Model;
  readonly #visionBatch: number;

  constructor(model: Model, visionBatch: number) {
    const { ref, tasks, size } = model.file;
    this.info = { ref, tasks, image: { width: size, height: size }, batch: BATCH };
    this.#model = model;
    this.#visionBatch = visionBatch;
  }

  async label(task: TaskSpec, items: readonly Item[], pixels: Uint8Array): Promise<Output[]> {
    const model = this.#model;
    const { ref, tasks } = model.file;
    if (!tasks.includes(task.name)) throw new CapfleetError("TASK_UNSUPPORTED", `${ref.model} can't do "${task.name}"`);
    if (!needsImage(task)) return embedTexts(model, items);
    const { states, embedding } = await this.#encode(pixels, items.length);
    if (task.name === "caption") return caption(model, task, items, states!);
    if (task.name === "vqa") return vqa(model, task, items, states!);
    if (task.name === "itm") return itm(model, items, states!);
    return task.name === "itc" ? itc(model, items, embedding!) : embedImages(embedding!);
  }

  async release(): Promise<void> {
    await this.#model.sessions.release();
  }

  /** Each image goes through the vision encoder once, whatever is asked of it. */
  async #encode(pixels: Uint8Array, count: number): Promise<Tensors> {
    const { file, sessions } = this.#model;
    const bytes = file.size * file.size * 3;
    if (pixels.length !== count * bytes) {
      throw new CapfleetError("ENGINE_FAILED", `${pixels.length} bytes of pixels, expected ${count} × ${bytes}`);
    }
    const parts: Tensors[] = [];
    for (let first = 0; first < count; first += this.#visionBatch) {
      const images = Math.min(this.#visionBatch, count - first);
      const part = pixels.subarray(first * bytes, (first + images) * bytes);
      parts.push(
        await sessions.run("vision", { pixels: new Tensor("uint8", part, [images, file.size, file.size, 3]) }),
      );
    }
    const names = Object.keys(parts[0]!);
    return Object.fromEntries(names.map((name) => [name, concat(parts.map((part) => part[name]!))]));
  }
}

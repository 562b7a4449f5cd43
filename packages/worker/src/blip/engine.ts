/** A compiled BLIP engine, loaded on a device. */
import { join } from "node:path";
import { asCapfleetError, CapfleetError, type Decoding } from "@capfleet/shared/contract";
import { InferenceSession, Tensor } from "onnxruntime-node";
import type { CaptionOutput, Engine, EngineInfo } from "../engine/engine.ts";
import { CAPTION_FILE, ENGINE_FILE, type EngineFile, engineFileSchema } from "./folder.ts";
import { readJson } from "./json.ts";
import { Texts } from "./tokenizer.ts";

/**
 * On a CPU a batch takes time in proportion to its size, so every size is as good as any: no batch need be padded. Above
 * 8 images only memory grows, not speed (BLIP-base, fp32, 2 cores: 1.02, 1.14, 1.27, 1.27, 1.27 images/s at 1, 2, 4, 8,
 * 16 images).
 */
const BATCH_SIZES = [1, 2, 3, 4, 5, 6, 7, 8];

const SESSION_OPTIONS = {
  // The runtime's own threads wait for their next piece of work by spinning, which makes a small model a fifth faster;
  // they stop at a run's end, since between runs the cores are for decoding images.
  extra: { session: { force_spinning_stop: "1" } },
  logSeverityLevel: 3,
} satisfies InferenceSession.SessionOptions;

/** Loads the engine in `engineDir`; one operator uses up to `threads` threads. Throws ENGINE_FAILED. */
export async function loadEngine(engineDir: string, { threads }: { threads: number }): Promise<Engine> {
  try {
    const file = await readJson(join(engineDir, ENGINE_FILE), engineFileSchema);
    const texts = await Texts.load(engineDir);
    const options = { ...SESSION_OPTIONS, intraOpNumThreads: threads };
    const session = await InferenceSession.create(join(engineDir, CAPTION_FILE), options);
    return new BlipEngine(file, texts, session);
  } catch (thrown) {
    throw engineFailed(`the engine in ${engineDir} can't be loaded`, thrown);
  }
}

class BlipEngine implements Engine {
  readonly info: EngineInfo;
  readonly #file: EngineFile;
  readonly #texts: Texts;
  readonly #session: InferenceSession;

  constructor(file: EngineFile, texts: Texts, session: InferenceSession) {
    const image = { width: file.size, height: file.size };
    this.info = { ref: file.ref, tasks: file.tasks, image, batchSizes: BATCH_SIZES };
    this.#file = file;
    this.#texts = texts;
    this.#session = session;
  }

  /** Throws ENGINE_FAILED; INVALID_OPTION where the model can't make that many tokens. */
  async caption(pixels: Uint8Array, batch: number, { maxNewTokens }: Decoding): Promise<CaptionOutput[]> {
    const { end, maxNewTokens: most, ref } = this.#file;
    if (maxNewTokens > most) {
      throw new CapfleetError("INVALID_OPTION", `${maxNewTokens} new tokens: ${ref.model} can make ${most} at most`);
    }
    const outputs = await this.#run(pixels, batch, maxNewTokens);
    const ids = Array.from(outputs.ids!.data as BigInt64Array, Number);
    const scores = outputs.scores!.data as Float32Array;
    const tokens = ids.length / batch;
    return Array.from({ length: batch }, (_, i) => {
      const row = ids.slice(i * tokens, (i + 1) * tokens);
      const endAt = row.indexOf(end);
      const own = endAt < 0 ? row : row.slice(0, endAt + 1);
      const score = scores[i]!;
      if (!Number.isFinite(score))
        throw new CapfleetError("ENGINE_FAILED", `${ref.model} computed a score of ${score}`);
      return { ids: own, text: this.#texts.decode(own), score };
    });
  }

  async release(): Promise<void> {
    await this.#session.release();
  }

  async #run(pixels: Uint8Array, batch: number, maxNewTokens: number): Promise<InferenceSession.ReturnType> {
    const { size, ref } = this.#file;
    try {
      return await this.#session.run({
        pixels: new Tensor("uint8", pixels, [batch, size, size, 3]),
        max_new_tokens: new Tensor("int64", BigInt64Array.of(BigInt(maxNewTokens)), []),
      });
    } catch (thrown) {
      throw engineFailed(`${ref.model} failed on a batch of ${batch}`, thrown);
    }
  }
}

function engineFailed(what: string, thrown: unknown): CapfleetError {
  const { message } = asCapfleetError(thrown);
  return new CapfleetError("ENGINE_FAILED", `${what}: ${message}`, { cause: thrown });
}

/** What the pipeline knows of a model. BLIP (../blip) is one; another family is another file behind the same lines. */
import type { Decoding, EngineRef, Task } from "@capfleet/shared/contract";

export interface EngineInfo {
  /** Identity: see `EngineRef`. */
  ref: EngineRef;
  tasks: readonly Task[];
  /** The size in pixels that images are resized to, without cropping. */
  image: { width: number; height: number };
  /** Batch sizes that the engine runs well, ascending. A smaller batch runs in the next larger one's time. */
  batchSizes: readonly number[];
}

export interface CaptionOutput {
  /** Token ids without the start token, up to and with the end token. */
  ids: number[];
  text: string;
  /** Mean natural-log probability of `ids`; at most 0. */
  score: number;
}

/**
 * A loaded model on one device. Calls block the thread they run on (onnxruntime-node does), so it lives in a
 * worker_thread. Errors: ENGINE_FAILED.
 */
export interface Engine {
  readonly info: EngineInfo;
  /** `pixels`: uint8 RGB, [batch, height, width, 3]. One output per image, the same whatever else is in the batch. */
  caption(pixels: Uint8Array, batch: number, decoding: Decoding): Promise<CaptionOutput[]>;
  release(): Promise<void>;
}

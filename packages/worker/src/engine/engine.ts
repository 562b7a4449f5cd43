/** What the pipeline knows of a model. BLIP (../blip) is one; another family is another file behind the same lines. */
import type { EngineRef, Task, TaskSpec } from "@capfleet/shared/contract";

export interface EngineInfo {
  /** Identity: see `EngineRef`. */
  ref: EngineRef;
  tasks: readonly Task[];
  /** The size in pixels that images are resized to, without cropping. */
  image: { width: number; height: number };
  /** Images that the engine labels well at a time; it takes fewer as well. */
  batch: number;
}

/** One record of a batch. */
export interface Item {
  /** The record's id: with the seed it decides what sampling draws. */
  id: string;
  /** Questions, or texts to compare with the image; empty for a task that has none. */
  texts: readonly string[];
}

/** A text that the model made. */
export interface Generated {
  /** Token ids without prompt and start token, up to and with the end token. */
  ids: number[];
  /** The whole text, prompt included. */
  text: string;
  /** Mean natural-log probability of `ids` as the model gave it, before penalties and sampling; at most 0. */
  score: number;
  /** Beams: what the hypotheses are ranked by (transformers' `sequences_scores`). Otherwise equal to `score`. */
  rank: number;
}

/** What came of one record; `cut`: indices of the texts that were too long for the model and lost their end. */
export type Output =
  /** As many as the task asks for, the best first (as drawn, where they are samples). */
  | { task: "caption"; captions: Generated[] }
  /** One per question. */
  | { task: "vqa"; answers: Generated[]; cut: number[] }
  /** One per text: a probability (itm), a cosine similarity (itc). */
  | { task: "itm" | "itc"; scores: number[]; cut: number[] }
  /** Vectors of length 1: one per text; or one or several of the image (BLIP-2: one per query). */
  | { task: "embed"; embeddings: number[][]; cut: number[] };

/**
 * A loaded model on one device. Calls block the thread they run on (onnxruntime-node does), so it lives in a
 * worker_thread. Errors: ENGINE_FAILED.
 */
export interface Engine {
  readonly info: EngineInfo;
  /**
   * `pixels`: uint8 RGB, [items, height, width, 3]; empty for a task that looks at no image. One output per item, the
   * same whatever else is in the batch. Throws INVALID_OPTION where the model can't do what the task asks.
   */
  label(task: TaskSpec, items: readonly Item[], pixels: Uint8Array): Promise<Output[]>;
  release(): Promise<void>;
}

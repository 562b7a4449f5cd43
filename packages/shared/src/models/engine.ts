/**
 * What makes one engine the same as another: the checkpoint's bytes, the graphs that capfleet builds from them, the
 * precision, and the runtime. A job pins the digest; workers, queues and the cache of compiled engines go by it.
 */
import { createHash } from "node:crypto";
import type { EngineRef, Precision } from "../contract/job.ts";
import type { Task } from "../contract/task.ts";

/** Raised whenever the graphs change in a way that can change an answer. */
export const GRAPH_VERSION = "blip-3";
/** The onnxruntime-node that workers run; the worker's tests hold it against the installed package. */
export const RUNTIME_VERSION = "1.30.0";

export function engineRef(model: string, checkpoint: string, precision: Precision): EngineRef {
  const parts = [checkpoint, GRAPH_VERSION, precision, RUNTIME_VERSION];
  const digest = createHash("sha256").update(parts.join("\n")).digest("hex").slice(0, 16);
  return { model, digest, checkpoint, precision };
}

/** Architectures of config.json, and what each can be asked to do here. */
export const ARCHITECTURES: Record<string, readonly Task[]> = {
  BlipForConditionalGeneration: ["caption"],
  BlipForQuestionAnswering: ["vqa"],
  BlipForImageTextRetrieval: ["itm", "itc", "embed"],
  Blip2ForConditionalGeneration: ["caption", "vqa"],
  Blip2ForImageTextRetrieval: ["itm", "itc", "embed"],
};

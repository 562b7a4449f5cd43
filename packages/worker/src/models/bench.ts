/** How fast an engine is on this machine, by threads and images at a time. The pixels are noise: speed does not depend on them. */
import { availableParallelism } from "node:os";
import { type Task, type TaskSpec, taskSpecSchema } from "@capfleet/shared/contract";
import { loadEngine } from "../blip/index.ts";
import type { Engine } from "../engine/engine.ts";

export interface BenchRow {
  threads: number;
  /** Images at a time. */
  batch: number;
  imagesPerSecond: number;
  residentMb: number;
}

const BATCHES = [1, 2, 4, 8, 16];
/**
 * A measurement goes on for so long, and over so many batches at least; but no batch is begun after so long. Its best
 * batch counts.
 */
const MIN_MS = 1_500;
const MIN_ROUNDS = 3;
const MAX_MS = 15_000;
const TEXT = "a photo of two dogs on a beach";

/** Measures one row after the other. Throws ENGINE_FAILED, DEVICE_UNAVAILABLE, TASK_UNSUPPORTED. */
export async function* benchModel(engineDir: string, device: string, task: Task): AsyncGenerator<BenchRow> {
  for (const threads of threadCounts(availableParallelism())) {
    const engine = await loadEngine(engineDir, { threads, device });
    try {
      for (const batch of BATCHES) yield { threads, batch, ...(await measure(engine, benchTask(task), batch)) };
    } finally {
      await engine.release();
    }
  }
}

/** 1, 2, 4, … and all. */
function threadCounts(all: number): number[] {
  const powers = Array.from({ length: Math.floor(Math.log2(all)) + 1 }, (_, i) => 2 ** i);
  return [...new Set([...powers, all])];
}

function benchTask(task: Task): TaskSpec {
  const texts = { given: [TEXT] };
  if (task === "caption") return taskSpecSchema.parse({ name: task, decoding: {} });
  if (task === "vqa") return taskSpecSchema.parse({ name: task, decoding: {}, questions: texts });
  return task === "embed" ? taskSpecSchema.parse({ name: task }) : taskSpecSchema.parse({ name: task, texts });
}

async function measure(engine: Engine, task: TaskSpec, batch: number) {
  const { width, height } = engine.info.image;
  const pixels = new Uint8Array(batch * width * height * 3).map((_, i) => (i * 2_654_435_761) >>> 24);
  const texts = task.name === "caption" || task.name === "embed" ? [] : [TEXT];
  const items = Array.from({ length: batch }, (_, i) => ({ id: String(i), texts }));
  // Loads what the task needs, and brings it into memory.
  await engine.label(task, items, pixels);
  let best = Number.POSITIVE_INFINITY;
  const started = performance.now();
  const elapsed = () => performance.now() - started;
  for (let round = 0; elapsed() < (round < MIN_ROUNDS ? MAX_MS : MIN_MS); round++) {
    const before = performance.now();
    await engine.label(task, items, pixels);
    best = Math.min(best, performance.now() - before);
  }
  return { imagesPerSecond: (1_000 * batch) / best, residentMb: process.memoryUsage().rss / 1e6 };
}

/**
 * The thread that owns a device's engines. `session.run` of onnxruntime-node blocks the thread it is called on, so it
 * must not be the one that does IO. Requests are answered one after the other, in order.
 */
import { parentPort, workerData } from "node:worker_threads";
import { asCapfleetError, type ErrorCode, type TaskSpec } from "@capfleet/shared/contract";
import { loadEngine } from "../blip/index.ts";
import type { Engine, EngineInfo, Item, Output } from "./engine.ts";

export interface ThreadData {
  /** Folders of compiled engines. */
  folders: string[];
  /** Threads that one operator may use. */
  threads: number;
  /** "cpu", "cuda" or "cuda:N". */
  device: string;
}

export interface LabelRequest {
  id: number;
  engine: number;
  task: TaskSpec;
  items: Item[];
  /**
   * uint8 RGB, [capacity, height, width, 3]; shared with the main thread, which leaves it alone meanwhile. Null for a
   * task that looks at no image.
   */
  slab: SharedArrayBuffer | null;
  /** The items' images are [first, first + items.length) of the slab. */
  first: number;
}

export type Reply =
  | { kind: "ready"; infos: EngineInfo[] }
  | { kind: "broken"; code: ErrorCode; message: string }
  | { kind: "done"; id: number; outputs: Output[] }
  | { kind: "failed"; id: number; code: ErrorCode; message: string };

const port = parentPort!;
const reply = (message: Reply) => port.postMessage(message);
const errorOf = (thrown: unknown) => {
  const { code, message } = asCapfleetError(thrown, "ENGINE_FAILED");
  return { code, message };
};

const { folders, threads, device } = workerData as ThreadData;
const engines: Engine[] = [];
try {
  for (const folder of folders) engines.push(await loadEngine(folder, { threads, device }));
  reply({ kind: "ready", infos: engines.map((engine) => engine.info) });
} catch (thrown) {
  reply({ kind: "broken", ...errorOf(thrown) });
}

let last: Promise<void> = Promise.resolve();
port.on("message", (request: LabelRequest) => {
  last = last.then(() => answer(request));
});

async function answer({ id, engine: index, task, items, slab, first }: LabelRequest): Promise<void> {
  try {
    const engine = engines[index]!;
    const { width, height } = engine.info.image;
    const bytes = width * height * 3;
    const pixels = slab ? new Uint8Array(slab, first * bytes, items.length * bytes) : NO_PIXELS;
    reply({ kind: "done", id, outputs: await engine.label(task, items, pixels) });
  } catch (thrown) {
    reply({ kind: "failed", id, ...errorOf(thrown) });
  }
}

const NO_PIXELS = new Uint8Array(0);

/**
 * The thread that owns a device's engines. `session.run` of onnxruntime-node blocks the thread it is called on, so it
 * must not be the one that does IO. Requests are answered one after the other, urgent ones first; see turns.ts.
 */
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { asCapfleetError, type ErrorCode, type TaskSpec } from "@capfleet/shared/contract";
import { faultPoint } from "@capfleet/shared/faults";
import { loadEngine } from "../blip/index.ts";
import type { Engine, EngineInfo, Item, Output } from "./engine.ts";
import { Turns } from "./turns.ts";

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
  /** Somebody waits for it: it overtakes those that are not. */
  urgent: boolean;
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

const turns = new Turns<LabelRequest>();
let running = false;
port.on("message", (request: LabelRequest) => {
  turns.add(request);
  if (!running) void run();
});

async function run(): Promise<void> {
  running = true;
  for (let next = turns.next(); next; next = turns.next()) {
    await answer(next);
    // What came while the engine had this thread has not been delivered yet, and may have to go first.
    for (let came = receiveMessageOnPort(port); came; came = receiveMessageOnPort(port)) turns.add(came.message);
  }
  running = false;
}

async function answer({ id, engine: index, task, items, slab, first }: LabelRequest): Promise<void> {
  try {
    const engine = engines[index]!;
    const { width, height } = engine.info.image;
    const bytes = width * height * 3;
    for (const item of items) faultPoint("worker.infer", item.id);
    const pixels = slab ? new Uint8Array(slab, first * bytes, items.length * bytes) : NO_PIXELS;
    reply({ kind: "done", id, outputs: await engine.label(task, items, pixels) });
  } catch (thrown) {
    reply({ kind: "failed", id, ...errorOf(thrown) });
  }
}

const NO_PIXELS = new Uint8Array(0);

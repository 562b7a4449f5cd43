/**
 * The thread that owns a device's engines. `session.run` of onnxruntime-node blocks the thread it is called on, so it
 * must not be the one that does IO. Requests are answered one after the other, in order.
 */
import { parentPort, workerData } from "node:worker_threads";
import { asCapfleetError, type Decoding, type ErrorCode } from "@capfleet/shared/contract";
import { loadEngine } from "../blip/index.ts";
import type { CaptionOutput, Engine, EngineInfo } from "./engine.ts";

export interface ThreadData {
  /** Folders of compiled engines. */
  folders: string[];
  /** Threads that one operator may use. */
  threads: number;
}

export interface RunRequest {
  id: number;
  engine: number;
  /** Batches of uint8 RGB, [capacity, height, width, 3]; shared with the main thread, which leaves it alone meanwhile. */
  slab: SharedArrayBuffer;
  /** Images [first, first + count) of the slab. */
  first: number;
  count: number;
  decoding: Decoding;
}

export type Reply =
  | { kind: "ready"; infos: EngineInfo[] }
  | { kind: "broken"; code: ErrorCode; message: string }
  | { kind: "done"; id: number; outputs: CaptionOutput[] }
  | { kind: "failed"; id: number; code: ErrorCode; message: string };

const port = parentPort!;
const reply = (message: Reply) => port.postMessage(message);
const errorOf = (thrown: unknown) => {
  const { code, message } = asCapfleetError(thrown, "ENGINE_FAILED");
  return { code, message };
};

const { folders, threads } = workerData as ThreadData;
const engines: Engine[] = [];
try {
  for (const folder of folders) engines.push(await loadEngine(folder, { threads }));
  reply({ kind: "ready", infos: engines.map((engine) => engine.info) });
} catch (thrown) {
  reply({ kind: "broken", ...errorOf(thrown) });
}

let last: Promise<void> = Promise.resolve();
port.on("message", (request: RunRequest) => {
  last = last.then(() => answer(request));
});

async function answer({ id, engine: index, slab, first, count, decoding }: RunRequest): Promise<void> {
  try {
    const engine = engines[index]!;
    const { width, height } = engine.info.image;
    const bytes = width * height * 3;
    // Batch sizes come from a few fixed ones. What stands in the slab's unused places is labelled too, and ignored.
    const room = slab.byteLength / bytes - first;
    const padded = engine.info.batchSizes.find((size) => size >= count) ?? count;
    const batch = padded <= room ? padded : count;
    const outputs = await engine.caption(new Uint8Array(slab, first * bytes, batch * bytes), batch, decoding);
    reply({ kind: "done", id, outputs: outputs.slice(0, count) });
  } catch (thrown) {
    reply({ kind: "failed", id, ...errorOf(thrown) });
  }
}

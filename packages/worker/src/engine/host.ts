/** The main thread's side of the engine thread: start it, send it batches, get outputs back. */
import { Worker } from "node:worker_threads";
import { CapfleetError, type ErrorCode } from "@capfleet/shared/contract";
import type { EngineInfo, Output } from "./engine.ts";
import type { LabelRequest, Reply, ThreadData } from "./thread.ts";

/** In so many steps it is found out that the thread hangs. */
const HANG_STEPS = 4;

interface Waiting {
  resolve(outputs: Output[]): void;
  reject(error: CapfleetError): void;
}

export class EngineHost {
  readonly infos: EngineInfo[];
  /** Settles when the thread ends; rejects (ENGINE_FAILED) where it ended by itself, after which nothing runs here. */
  readonly ended: Promise<void>;
  readonly #thread: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 0;
  #closing = false;
  #heard = 0;

  private constructor(thread: Worker, infos: EngineInfo[]) {
    this.#thread = thread;
    this.infos = infos;
    thread.on("message", (message: Reply) => this.#receive(message));
    this.ended = new Promise((resolve, reject) => {
      let cause: unknown;
      thread.on("error", (thrown) => {
        cause = thrown;
      });
      thread.on("exit", (code) => {
        const message = `the engine thread ended (code ${code})${cause instanceof Error ? `: ${cause.message}` : ""}`;
        const error = new CapfleetError("ENGINE_FAILED", message, { cause });
        for (const waiting of this.#waiting.values()) waiting.reject(error);
        this.#waiting.clear();
        if (this.#closing) resolve();
        else reject(error);
      });
    });
    // Whoever awaits a run hears of it too; an unobserved rejection must not end the process by itself.
    this.ended.catch(() => {});
  }

  /** Loads the compiled engines in `folders` on a new thread. Throws ENGINE_FAILED. */
  static async start(data: ThreadData): Promise<EngineHost> {
    const thread = new Worker(new URL("./thread.ts", import.meta.url), { workerData: data });
    const { promise, resolve, reject } = Promise.withResolvers<EngineInfo[]>();
    const fail = (message: string, code: ErrorCode = "ENGINE_FAILED") => reject(new CapfleetError(code, message));
    const onMessage = (message: Reply) => {
      if (message.kind === "ready") resolve(message.infos);
      else if (message.kind === "broken") fail(message.message, message.code);
    };
    const onError = (thrown: unknown) => fail(thrown instanceof Error ? thrown.message : String(thrown));
    const onExit = (code: number) => fail(`the engine thread ended at its start (code ${code})`);
    thread.once("message", onMessage).once("error", onError).once("exit", onExit);
    const infos = await promise.catch(async (thrown: unknown) => {
      await thread.terminate();
      throw thrown;
    });
    thread.off("error", onError).off("exit", onExit);
    return new EngineHost(thread, infos);
  }

  /** One output per item. The items' images in the slab must not be written meanwhile. Throws ENGINE_FAILED, INVALID_OPTION. */
  label(request: Omit<LabelRequest, "id">): Promise<Output[]> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#thread.postMessage({ id, ...request } satisfies LabelRequest);
    });
  }

  /**
   * Settles when the thread has had batches for `batchMs` without an answer to one of them, else never. One that hangs in
   * native code can't be ended from here, only with the process.
   */
  hangs(batchMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    // Steps, not a clock: a process that stood still must not take its own silence for the thread's.
    let silent = 0;
    let heard = this.#heard;
    const watch = setInterval(() => {
      silent = heard === this.#heard && this.#waiting.size > 0 ? silent + 1 : 0;
      heard = this.#heard;
      if (silent > HANG_STEPS) resolve();
    }, batchMs / HANG_STEPS).unref();
    const end = () => clearInterval(watch);
    this.ended.then(end, end);
    return promise;
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#thread.terminate();
  }

  #receive(message: Reply): void {
    if (message.kind !== "done" && message.kind !== "failed") return;
    this.#heard += 1;
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.kind === "done") waiting?.resolve(message.outputs);
    else waiting?.reject(new CapfleetError(message.code, message.message));
  }
}

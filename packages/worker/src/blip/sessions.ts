/** A compiled engine's graphs in ONNX Runtime. All but the vision encoder are loaded when they are first asked for. */
import { join } from "node:path";
import { asCapfleetError, CapfleetError } from "@capfleet/shared/contract";
import { type Device, parseDevice } from "@capfleet/shared/models";
import { env, InferenceSession, type Tensor } from "onnxruntime-node";
import { type GraphName, graphFile } from "./folder.ts";

// What goes wrong is thrown, with a code; the runtime's own lines on stderr would only say it again.
env.logLevel = "fatal";

export interface SessionSettings {
  /** Threads that one operator may use. */
  threads: number;
  /** `cpu`, `cuda` or `cuda:N`. */
  device: string;
}

export type Tensors = Record<string, Tensor>;

export class Sessions {
  readonly #folder: string;
  readonly #options: InferenceSession.SessionOptions;
  readonly #open = new Map<GraphName, Promise<InferenceSession>>();

  private constructor(folder: string, options: InferenceSession.SessionOptions) {
    this.#folder = folder;
    this.#options = options;
  }

  /** Throws DEVICE_UNAVAILABLE where the device can't be had, ENGINE_FAILED where the engine can't be loaded. */
  static async open(folder: string, { threads, device }: SessionSettings): Promise<Sessions> {
    const sessions = new Sessions(folder, { ...sessionOptions(parseDevice(device)), intraOpNumThreads: threads });
    await sessions.#session("vision");
    return sessions;
  }

  /** Throws ENGINE_FAILED. */
  async run(name: GraphName, feeds: Tensors): Promise<Tensors> {
    const session = await this.#session(name);
    try {
      return (await session.run(feeds)) as Tensors;
    } catch (thrown) {
      const sizes = Object.entries(feeds).map(([input, { dims }]) => `${input} [${dims.join(", ")}]`);
      throw engineFailed(`${name} failed on ${sizes.join(", ")}`, thrown);
    }
  }

  async release(): Promise<void> {
    for (const session of this.#open.values()) await (await session).release();
    this.#open.clear();
  }

  #session(name: GraphName): Promise<InferenceSession> {
    const known = this.#open.get(name);
    if (known) return known;
    const file = join(this.#folder, graphFile(name));
    const session = InferenceSession.create(file, this.#options).catch((thrown: unknown) => {
      this.#open.delete(name);
      throw loadFailed(file, thrown);
    });
    this.#open.set(name, session);
    return session;
  }
}

function sessionOptions(device: Device): InferenceSession.SessionOptions {
  return {
    executionProviders: device.provider === "cuda" ? [{ name: "cuda", deviceId: device.id }] : ["cpu"],
    // The runtime's own threads wait for their next piece of work by spinning, which makes a small model a fifth faster;
    // they stop at a run's end, since between runs the cores are for decoding images.
    extra: { session: { force_spinning_stop: "1" } },
    logSeverityLevel: 3,
  };
}

/** ONNX Runtime refuses a provider whose libraries it can't load; its message is the only way to tell. */
function loadFailed(file: string, thrown: unknown): CapfleetError {
  const { message } = asCapfleetError(thrown);
  if (!/ExecutionProvider|CUDA|cuda|backend not found/.test(message))
    return engineFailed(`${file} can't be loaded`, thrown);
  return new CapfleetError("DEVICE_UNAVAILABLE", `ONNX Runtime's CUDA provider can't be used: ${message}`, {
    cause: thrown,
  });
}

export function engineFailed(what: string, thrown: unknown): CapfleetError {
  const { message } = asCapfleetError(thrown);
  return new CapfleetError("ENGINE_FAILED", `${what}: ${message}`, { cause: thrown });
}

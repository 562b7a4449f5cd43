/** From a model to the folder of its compiled engine: cached, else downloaded where it is published, else compiled. */
import { join } from "node:path";
import type { Config } from "@capfleet/shared/config";
import { asCapfleetError } from "@capfleet/shared/contract";
import { diskFull, type FetchListener, type Model } from "@capfleet/shared/models";
import type { Stores } from "@capfleet/shared/storage";
import { ensureEngine } from "../blip/index.ts";
import { isEngine, pullEngine } from "./published.ts";

export interface PreparedEngine {
  folder: string;
  how: "cached" | "downloaded" | "compiled";
}

export const enginesFolder = (config: Config) => join(config.cache, "engines");

/**
 * Where the published engines can't be reached or one is damaged, this machine compiles, with a note: a worker that can
 * work should. Throws DISK_FULL, and what the compiler throws.
 */
export async function prepareEngine(
  { ref, folder: checkpoint }: Model,
  config: Config,
  stores: Stores,
  listener: FetchListener,
): Promise<PreparedEngine> {
  const folder = join(enginesFolder(config), ref.digest);
  if (isEngine(folder)) return { folder, how: "cached" };
  if (config.engines !== null) {
    try {
      const found = await pullEngine(ref.digest, stores.at(config.engines), folder, listener);
      if (found) return { folder, how: "downloaded" };
    } catch (thrown) {
      const { code, message } = asCapfleetError(thrown);
      if (code === "DISK_FULL") throw thrown;
      listener.note?.(`${code}: ${message}; ${ref.model} is compiled here instead`);
    }
  }
  await ensureEngine(checkpoint!, ref, folder).catch((thrown: Error) => {
    throw diskFull(thrown.cause, enginesFolder(config)) ?? thrown;
  });
  return { folder, how: "compiled" };
}

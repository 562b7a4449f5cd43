/** From what a user calls a model to the engine that a job pins: a folder, a bundled name, or a registered name. */
import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import * as z from "zod";
import { BUNDLED_MODELS, type Config } from "../config.ts";
import { CapfleetError } from "../contract/errors.ts";
import { type EngineRef, engineRefSchema, type Precision, taskSchema } from "../contract/job.ts";
import { stateLayout } from "../contract/layout.ts";
import type { Store } from "../storage/index.ts";
import { type Abilities, checkpointAbilities, checkpointDigest } from "./checkpoint.ts";
import { engineRef } from "./engine.ts";

export interface Model extends Abilities {
  ref: EngineRef;
  /** Where its checkpoint is; null for one that is known only because a worker registered it. */
  folder: string | null;
}

/** `<state>/models/<name>.json`: what a worker runs under that name. */
const registrationSchema = z.object({
  ref: engineRefSchema,
  tasks: z.array(taskSchema),
  maxNewTokens: z.number().int(),
});

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** Throws MODEL_NOT_FOUND, MODEL_INVALID or MODEL_UNSUPPORTED. */
export async function findModel(given: string, precision: Precision, state: Store, config: Config): Promise<Model> {
  const folder = folderOf(given);
  if (folder !== null) return localModel(folder, precision, config);
  if (NAME.test(given)) {
    const found = await state.read(stateLayout.model(given), { maxBytes: 65_536 }).catch((thrown: unknown) => {
      if (thrown instanceof CapfleetError && thrown.code === "OBJECT_NOT_FOUND") return null;
      throw thrown;
    });
    if (found) {
      return { ...registrationSchema.parse(JSON.parse(found.bytes.toString("utf8"))), folder: null };
    }
  }
  throw new CapfleetError("MODEL_NOT_FOUND", `no model "${given}": no such folder, bundled model or registered name`);
}

/** Throws MODEL_NOT_FOUND where `given` is neither a checkpoint folder nor a bundled name. */
export async function findLocalModel(given: string, precision: Precision, config: Config): Promise<Model> {
  const folder = folderOf(given);
  if (folder !== null) return localModel(folder, precision, config);
  throw new CapfleetError("MODEL_NOT_FOUND", `no model "${given}": no such checkpoint folder and no bundled model`);
}

export async function registerModel(model: Model, state: Store): Promise<void> {
  const { folder: _, ...registration } = model;
  await state.put(stateLayout.model(model.ref.model), JSON.stringify(registration));
}

async function localModel(folder: string, precision: Precision, config: Config): Promise<Model> {
  const abilities = await checkpointAbilities(folder);
  const checkpoint = await checkpointDigest(folder, config.cache);
  return { ref: engineRef(basename(folder), checkpoint, precision), ...abilities, folder };
}

function folderOf(given: string): string | null {
  const bundled = join(BUNDLED_MODELS, given);
  if (NAME.test(given) && existsSync(join(bundled, "config.json"))) return bundled;
  const folder = resolve(given);
  return existsSync(join(folder, "config.json")) ? folder : null;
}

/** `<state>/models/<name>.json`: what the workers run under that name, an engine per precision, the newest last. */
import { isDeepStrictEqual } from "node:util";
import * as z from "zod";
import { CapfleetError } from "../contract/errors.ts";
import { type EngineRef, engineRefSchema } from "../contract/job.ts";
import { stateLayout } from "../contract/layout.ts";
import { taskSchema } from "../contract/task.ts";
import type { Store } from "../storage/index.ts";
import type { Abilities } from "./checkpoint.ts";

const registeredSchema = z.object({
  ref: engineRefSchema,
  tasks: z.array(taskSchema),
  maxNewTokens: z.number().int(),
});
/** What a worker says of a model that it runs. */
export interface RegisteredModel extends Abilities {
  ref: EngineRef;
}
const registrationSchema = z.object({ engines: z.array(registeredSchema) });

const MAX_BYTES = 65_536;
/** Workers that register the same model at the same moment; each round, one of them succeeds. */
const CONFLICTS = 100;

/** A hub model's name has a slash, which must not make a folder of `owner`. */
const keyOf = (name: string) => stateLayout.model(encodeURIComponent(name));

/** Empty where nobody has registered the name, or only a version of capfleet that wrote something else. */
export async function registeredModels(name: string, state: Store): Promise<RegisteredModel[]> {
  return (await read(name, state)).engines;
}

/** Every name that workers have registered, in the order of their bytes. */
export async function* registeredNames(state: Store): AsyncGenerator<string> {
  for await (const { key } of state.list({ prefix: stateLayout.models })) {
    const name = /^models\/(.+)\.json$/.exec(key)?.[1];
    if (name) yield decodeURIComponent(name);
  }
}

/** Puts the engine in the place of the one of the same precision. */
export async function registerModel({ ref, tasks, maxNewTokens }: RegisteredModel, state: Store): Promise<void> {
  const mine = { ref, tasks: [...tasks], maxNewTokens };
  const key = keyOf(ref.model);
  for (let conflicts = 0; conflicts < CONFLICTS; conflicts++) {
    const { engines, etag } = await read(ref.model, state);
    if (isDeepStrictEqual(engines.at(-1), mine)) return;
    const others = engines.filter((engine) => engine.ref.precision !== ref.precision);
    const body = JSON.stringify({ engines: [...others, mine] });
    const { outcome } = etag === null ? await state.putIfAbsent(key, body) : await state.putIfMatch(key, body, etag);
    if (outcome === "written") return;
  }
  throw new CapfleetError("STORE_UNAVAILABLE", `${state.uriOf(key)} changes all the time`);
}

async function read(name: string, state: Store): Promise<{ engines: RegisteredModel[]; etag: string | null }> {
  try {
    const { bytes, etag } = await state.read(keyOf(name), { maxBytes: MAX_BYTES });
    return { engines: enginesIn(bytes.toString("utf8")), etag };
  } catch (thrown) {
    if (thrown instanceof CapfleetError && thrown.code === "OBJECT_NOT_FOUND") return { engines: [], etag: null };
    throw thrown;
  }
}

function enginesIn(text: string): RegisteredModel[] {
  try {
    return registrationSchema.parse(JSON.parse(text)).engines;
  } catch {
    return [];
  }
}

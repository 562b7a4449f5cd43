/** Which model a checkpoint is. */
import { join } from "node:path";
import type { Task } from "@capfleet/shared/contract";
import { ARCHITECTURES } from "@capfleet/shared/models";
import * as z from "zod";
import { type Preprocessing, readPreprocessing, unsupported } from "../images.ts";
import { readJson } from "../json.ts";
import { blip } from "./blip.ts";
import { blip2 } from "./blip2.ts";
import type { Described } from "./family.ts";

const FAMILIES = [blip, blip2];

export interface Model extends Described {
  tasks: readonly Task[];
  preprocessing: Preprocessing;
}

const architecturesSchema = z.object({ architectures: z.array(z.string()).min(1) });

/**
 * What the JSON files in a checkpoint's folder say of the model.
 *
 * Throws MODEL_INVALID (a file is missing, or a field is not what it must be) and MODEL_UNSUPPORTED (sound, but not
 * something that capfleet runs). Both name the file and the field.
 */
export async function readModel(folder: string): Promise<Model> {
  const file = join(folder, "config.json");
  const architecture = (await readJson(file, architecturesSchema)).architectures[0]!;
  const tasks = ARCHITECTURES[architecture];
  const family = FAMILIES.find(({ architectures }) => architectures.includes(architecture));
  if (!tasks || !family) {
    const supported = Object.entries(ARCHITECTURES).map(([name, tasks]) => `${name} (${tasks.join(", ")})`);
    return unsupported(`${file}: architecture ${architecture} is not known; supported: ${supported.join(", ")}`);
  }
  const described = await family.read(file, architecture);
  return { ...described, tasks, preprocessing: await readPreprocessing(folder, described.vision.size) };
}

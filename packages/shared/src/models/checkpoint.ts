/** A Hugging Face checkpoint folder: is it one, what can it do, and which one is it. */
import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { CapfleetError } from "../contract/errors.ts";
import { PRECISIONS, type Precision } from "../contract/job.ts";
import type { Task } from "../contract/task.ts";
import { cacheError } from "./disk.ts";
import { ARCHITECTURES } from "./engine.ts";
import { CONFIG, checkpointFiles } from "./files.ts";

export interface Abilities {
  tasks: readonly Task[];
  /** The most new tokens that it can make, if it makes texts. */
  maxNewTokens: number;
}

export interface CheckpointAbilities extends Abilities {
  /** `int4` is for a large language model only: there is little to gain in a small one. */
  precisions: readonly Precision[];
}

// What a config does not say is what transformers' BlipTextConfig, Blip2Config and OPTConfig have.
const configSchema = z.object({ architectures: z.array(z.string()).min(1) });
const positions = z.number().int().min(1);
const blipSchema = z.object({
  text_config: z.object({ max_position_embeddings: positions.default(512) }).prefault({}),
});
const blip2Schema = z.object({
  num_query_tokens: z.number().int().min(1).default(32),
  text_config: z
    .object({ model_type: z.string().default("opt"), max_position_embeddings: positions.default(2048) })
    .prefault({}),
});
/** Language models that BLIP-2 may have. */
const LANGUAGE_MODELS = ["opt"];

/** By the folder's config.json. Throws MODEL_INVALID (it can't be read, or is none) or MODEL_UNSUPPORTED. */
export function checkpointAbilities(folder: string): Promise<CheckpointAbilities> {
  return configAbilities(join(folder, CONFIG));
}

/** The same by the config in `file`, which messages call `name`: what is being downloaded is known by its source. */
export async function configAbilities(file: string, name: string = file): Promise<CheckpointAbilities> {
  try {
    return abilitiesIn(JSON.parse(await readFile(file, "utf8")), name);
  } catch (thrown) {
    if (thrown instanceof CapfleetError) throw thrown;
    const at = thrown instanceof z.ZodError ? thrown.issues[0]!.path.join(".") : "";
    const where = at === "" ? "" : ` (see \`${at}\`)`;
    throw new CapfleetError("MODEL_INVALID", `${name} is not a checkpoint's config${where}`, { cause: thrown });
  }
}

function abilitiesIn(config: unknown, file: string): CheckpointAbilities {
  const architecture = configSchema.parse(config).architectures[0]!;
  const tasks = ARCHITECTURES[architecture];
  if (!tasks) throw unsupported(file, architecture, Object.keys(ARCHITECTURES));
  if (architecture === "Blip2ForConditionalGeneration") {
    return { tasks, maxNewTokens: languageModelTokens(blip2Schema.parse(config), file), precisions: PRECISIONS };
  }
  const { max_position_embeddings: maxNewTokens } = blipSchema.parse(config).text_config;
  return { tasks, maxNewTokens, precisions: PRECISIONS.filter((precision) => precision !== "int4") };
}

/** The image's vectors stand before the text, and take places too. */
function languageModelTokens(config: z.infer<typeof blip2Schema>, file: string): number {
  const { num_query_tokens: queries, text_config } = config;
  const { model_type: type, max_position_embeddings: positions } = text_config;
  if (!LANGUAGE_MODELS.includes(type)) throw unsupported(file, `the language model "${type}"`, LANGUAGE_MODELS);
  if (positions > queries) return positions - queries;
  const message = `${file}: text_config.max_position_embeddings is ${positions}, of which the image takes ${queries}`;
  throw new CapfleetError("MODEL_INVALID", message);
}

const unsupported = (file: string, what: string, supported: readonly string[]) =>
  new CapfleetError("MODEL_UNSUPPORTED", `${file}: ${what} is not supported (supported: ${supported.join(", ")})`);

/**
 * sha256 over the relevant files' names and bytes. Hashing gigabytes takes a while, so the answer is kept in
 * `cacheFolder` for as long as names, sizes and times stay what they were.
 */
export async function checkpointDigest(folder: string, cacheFolder: string): Promise<string> {
  const names = checkpointFiles(await readdir(folder));
  const stats = await Promise.all(names.map((name) => stat(join(folder, name), { bigint: true })));
  const state = names.map((name, i) => `${name} ${stats[i]!.size} ${stats[i]!.mtimeNs} ${stats[i]!.ino}`).join("\n");
  const cached = join(cacheFolder, "digests", sha256(`${folder}\n${state}`));
  const known = await readFile(cached, "utf8").catch(() => null);
  if (known !== null) return known;

  const hash = createHash("sha256");
  for (const [i, name] of names.entries()) {
    hash.update(`${name} ${stats[i]!.size}\n`);
    for await (const chunk of createReadStream(join(folder, name))) hash.update(chunk);
  }
  const digest = hash.digest("hex");
  try {
    await mkdir(join(cacheFolder, "digests"), { recursive: true });
    const temporary = `${cached}.${randomUUID()}`;
    await writeFile(temporary, digest);
    await rename(temporary, cached);
  } catch (thrown) {
    throw cacheError(thrown, cacheFolder);
  }
  return digest;
}

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

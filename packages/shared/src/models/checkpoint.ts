/** A Hugging Face checkpoint folder: is it one, what can it do, and which one is it. */
import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { CapfleetError } from "../contract/errors.ts";
import type { Task } from "../contract/task.ts";
import { cacheError } from "./disk.ts";
import { ARCHITECTURES } from "./engine.ts";
import { checkpointFiles } from "./files.ts";

export interface Abilities {
  tasks: readonly Task[];
  /** The most new tokens that it can make: its positions. */
  maxNewTokens: number;
}

const configSchema = z.object({
  architectures: z.array(z.string()).min(1),
  // transformers' BlipTextConfig has 512 where a checkpoint does not say.
  text_config: z
    .object({ max_position_embeddings: z.number().int().default(512) })
    .default({ max_position_embeddings: 512 }),
});

/** Throws MODEL_INVALID (no readable config.json) or MODEL_UNSUPPORTED. */
export async function checkpointAbilities(folder: string): Promise<Abilities> {
  const file = join(folder, "config.json");
  let config: z.infer<typeof configSchema>;
  try {
    config = configSchema.parse(JSON.parse(await readFile(file, "utf8")));
  } catch (cause) {
    throw new CapfleetError("MODEL_INVALID", `${file} is not a checkpoint's config (it lacks \`architectures\`?)`, {
      cause,
    });
  }
  const architecture = config.architectures[0]!;
  const tasks = ARCHITECTURES[architecture];
  if (tasks) return { tasks, maxNewTokens: config.text_config.max_position_embeddings };
  const known = Object.keys(ARCHITECTURES).join(", ");
  throw new CapfleetError("MODEL_UNSUPPORTED", `${file}: ${architecture} is not supported (supported: ${known})`);
}

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

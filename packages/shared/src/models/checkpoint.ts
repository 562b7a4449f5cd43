/** A Hugging Face checkpoint folder: is it one, what can it do, and which one is it. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { CapfleetError } from "../contract/errors.ts";
import type { Task } from "../contract/job.ts";
import { ARCHITECTURES } from "./engine.ts";

/** Files that decide an answer; a folder's README or its copies in other formats do not. */
const RELEVANT =
  /^((config|preprocessor_config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json|vocab\.(txt|json)|merges\.txt|.*\.safetensors(\.index\.json)?)$/;

/** Throws MODEL_INVALID (no readable config.json) or MODEL_UNSUPPORTED. */
export async function checkpointTasks(folder: string): Promise<readonly Task[]> {
  const file = join(folder, "config.json");
  let architecture: string | undefined;
  try {
    const schema = z.object({ architectures: z.array(z.string()).min(1) });
    architecture = schema.parse(JSON.parse(await readFile(file, "utf8"))).architectures[0];
  } catch (cause) {
    throw new CapfleetError("MODEL_INVALID", `${file} has no readable \`architectures\``, { cause });
  }
  const tasks = ARCHITECTURES[architecture!];
  if (tasks) return tasks;
  const known = Object.keys(ARCHITECTURES).join(", ");
  throw new CapfleetError("MODEL_UNSUPPORTED", `${file}: ${architecture} is not supported (supported: ${known})`);
}

/**
 * sha256 over the relevant files' names and bytes. Hashing gigabytes takes a while, so the answer is kept in
 * `cacheFolder` for as long as names, sizes and times stay what they were.
 */
export async function checkpointDigest(folder: string, cacheFolder: string): Promise<string> {
  const names = (await readdir(folder)).filter((name) => RELEVANT.test(name)).sort();
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
  await mkdir(join(cacheFolder, "digests"), { recursive: true });
  const temporary = `${cached}.${process.pid}`;
  await writeFile(temporary, digest);
  await rename(temporary, cached);
  return digest;
}

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

/**
 * Checkpoints that have been downloaded: `<cache>/checkpoints/<digest of source and version>/`, a folder per version,
 * complete or not there. `refs/` says which version a source had when it was last asked, so that the hub can be away.
 */
import { createHash, randomUUID } from "node:crypto";
import { mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as z from "zod";
import { CapfleetError } from "../contract/errors.ts";
import { configAbilities } from "./checkpoint.ts";
import { cacheError } from "./disk.ts";
import { fetchFolder } from "./download.ts";
import { CONFIG } from "./files.ts";
import type { FetchListener, Remote } from "./remote.ts";

/** In a cached checkpoint: where it is from, and what belongs to it. */
const DESCRIPTION = "capfleet-source.json";
const descriptionSchema = z.object({
  /** What the model is called. */
  name: z.string(),
  from: z.string(),
  version: z.string(),
  files: z.array(z.object({ name: z.string(), size: z.number() })),
});
export type Description = z.infer<typeof descriptionSchema>;

export const checkpointsFolder = (cacheFolder: string) => join(cacheFolder, "checkpoints");

/**
 * The folder of the remote checkpoint, downloaded unless it is there. The network is not used for a pinned version that
 * is there; where the source can't be reached, the version that was there last is used, with a note.
 *
 * Throws MODEL_INVALID and MODEL_UNSUPPORTED by the config, before the rest is downloaded.
 */
export async function fetchCheckpoint(
  remote: Remote,
  name: string,
  cacheFolder: string,
  listener: FetchListener,
): Promise<string> {
  const root = checkpointsFolder(cacheFolder);
  const folderOf = (version: string) => join(root, digest(remote.id, version));
  const ref = join(root, "refs", digest(remote.id, remote.asked ?? ""));
  const last = await readFile(ref, "utf8").catch(() => null);
  let version: string;
  try {
    version = remote.pinned ?? (await remote.version());
  } catch (thrown) {
    if (!isAway(thrown) || last === null || !(await isWhole(folderOf(last)))) throw thrown;
    listener.note?.(`${thrown.message}; going on with the cached version ${last} of ${name}`);
    return folderOf(last);
  }
  const target = folderOf(version);
  if (!(await isWhole(target))) {
    // Before gigabytes of weights comes the file that says whether they can be used.
    const files = (await remote.files(version)).sort((a, b) => Number(b.name === CONFIG) - Number(a.name === CONFIG));
    const accept = (config: string) => configAbilities(config, `${remote.id.replace(/\/$/, "")}/${CONFIG}`);
    const description: Description = {
      name,
      from: remote.id,
      version,
      files: files.map(({ name, size }) => ({ name, size })),
    };
    const seal = (folder: string) =>
      writeFile(join(folder, DESCRIPTION), JSON.stringify(description, null, 2), { flush: true });
    await fetchFolder({ target, files, accept, isWhole: () => isWhole(target), seal }, listener);
  }
  // Not written where nothing changes: what is cached can be used where nothing can be written.
  if (remote.pinned === null && version !== last) await replaceFile(ref, version);
  return target;
}

/** What is known of a cached checkpoint; null for any other folder. */
export async function describeCheckpoint(folder: string): Promise<Description | null> {
  const text = await readFile(join(folder, DESCRIPTION), "utf8").catch(() => null);
  if (text === null) return null;
  try {
    return descriptionSchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

/** Whether the folder is a cached checkpoint that lacks nothing. */
export async function isWhole(folder: string): Promise<boolean> {
  const description = await describeCheckpoint(folder);
  if (description === null) return false;
  const sizes = await Promise.all(description.files.map(({ name }) => stat(join(folder, name)).catch(() => null)));
  return description.files.every(({ size }, i) => sizes[i]?.size === size);
}

const AWAY = ["HUB_UNREACHABLE", "STORE_UNAVAILABLE"];
const isAway = (thrown: unknown): thrown is CapfleetError =>
  thrown instanceof CapfleetError && AWAY.includes(thrown.code);

async function replaceFile(path: string, text: string): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    const temporary = `${path}.${randomUUID()}`;
    await writeFile(temporary, text, { flush: true });
    await rename(temporary, path);
  } catch (thrown) {
    throw cacheError(thrown, dirname(path));
  }
}

const digest = (...parts: string[]) => createHash("sha256").update(parts.join("\n")).digest("hex").slice(0, 32);

/**
 * The files below a folder in the order of their keys' UTF-8 bytes, as S3 lists them: a folder `a` sorts as `a/`, after
 * `a.txt` and before `a0`. Links are followed, except into a folder that is being listed already. Memory is bounded by
 * WINDOW names for each level of folders, however many files there are.
 */
import type { Dirent } from "node:fs";
import { opendir, stat } from "node:fs/promises";
import { CapfleetError } from "../contract/errors.ts";
import { isAbsent, readError } from "./file-error.ts";
import { etagOf, isTemporary } from "./file-replace.ts";
import { compareKeys } from "./key.ts";
import type { ListOptions, ObjectInfo } from "./store.ts";

/** Names kept at once: some tens of MB. A folder of more than twice as many is read again for each further WINDOW. */
const WINDOW = 200_000;
/** Files looked at side by side. */
const STATS = 64;

interface Walk {
  root: string;
  prefix: string;
  after: string;
  /** The folders from the root down to this one, by device and inode. */
  inside: string[];
  window: number;
}

/** `root` is a folder's path that ends with a slash. `window` is for tests. */
export async function* listFiles(
  root: string,
  { prefix = "", after = "" }: ListOptions,
  window: number = WINDOW,
): AsyncGenerator<ObjectInfo> {
  const folder = prefix.slice(0, prefix.lastIndexOf("/") + 1);
  if (
    folder
      .split("/")
      .slice(0, -1)
      .some((part) => part === "" || part === "." || part === "..")
  )
    return;
  yield* listFolder(folder, { root, prefix, after, inside: [], window });
}

async function* listFolder(folder: string, walk: Walk): AsyncGenerator<ObjectInfo> {
  const path = walk.root + folder;
  const status = await unlessAbsent(stat(path), path);
  if (status === undefined || !status.isDirectory()) return;
  const self = `${status.dev}:${status.ino}`;
  if (walk.inside.includes(self)) return;
  const below = { ...walk, inside: [...walk.inside, self] };

  for await (const keys of sortedEntries(folder, walk)) {
    for (let i = 0; i < keys.length; i += STATS) {
      const slice = keys.slice(i, i + STATS);
      const found = await Promise.all(slice.map((key) => (key.endsWith("/") ? undefined : describe(walk.root, key))));
      for (const [at, key] of slice.entries()) {
        if (key.endsWith("/")) yield* listFolder(key, below);
        else if (found[at] !== undefined) yield found[at];
      }
    }
  }
}

/** The keys of a folder's entries, in order; a folder's ends with a slash. Each pass keeps the smallest that are left. */
async function* sortedEntries(folder: string, walk: Walk): AsyncGenerator<string[]> {
  let last = "";
  for (let isWhole = false; !isWhole; ) {
    isWhole = true;
    const kept: string[] = [];
    for await (const entry of readFolder(walk.root + folder)) {
      if (isTemporary(entry.name)) continue;
      const isFolder = entry.isSymbolicLink()
        ? await leadsToFolder(walk.root + folder + entry.name)
        : entry.isDirectory();
      const key = isFolder ? `${folder}${entry.name}/` : folder + entry.name;
      if (!isWanted(key, walk) || compareKeys(key, last) <= 0) continue;
      if (kept.push(key) < 2 * walk.window) continue;
      kept.sort(compareKeys);
      kept.length = walk.window;
      isWhole = false;
    }
    // Once some have been dropped, only the first WINDOW are known to be followed by none of those.
    kept.sort(compareKeys);
    if (!isWhole) kept.length = walk.window;
    yield kept;
    last = kept.at(-1) ?? last;
  }
}

async function* readFolder(path: string): AsyncGenerator<Dirent> {
  try {
    yield* await opendir(path, { bufferSize: 1024 });
  } catch (error) {
    if (!isAbsent(error)) throw readError(error, path);
  }
}

async function leadsToFolder(path: string): Promise<boolean> {
  return (await unlessAbsent(stat(path), path))?.isDirectory() ?? false;
}

/** Whether the key, or any below it where it is a folder's, can have the prefix and come after `after`. */
function isWanted(key: string, { prefix, after }: Walk): boolean {
  const isFolder = key.endsWith("/");
  if (!key.startsWith(prefix) && !(isFolder && prefix.startsWith(key))) return false;
  return compareKeys(key, after) > 0 || (isFolder && after.startsWith(key));
}

async function describe(root: string, key: string): Promise<ObjectInfo | undefined> {
  const status = await unlessAbsent(stat(root + key, { bigint: true }), root + key);
  if (status !== undefined)
    return status.isFile() ? { key, size: Number(status.size), etag: etagOf(status) } : undefined;
  // Node reads a name that is not UTF-8 with U+FFFD in it, and can't find it again. Passing it over would lose a file.
  if (key.includes("\ufffd"))
    throw new CapfleetError("INVALID_URI", `${root}${key}: the file's name is not UTF-8; rename it`);
  return undefined;
}

async function unlessAbsent<T>(pending: Promise<T>, path: string): Promise<T | undefined> {
  try {
    return await pending;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw readError(error, path);
  }
}

/** Opens and reads a checkpoint's files. Errors are MODEL_INVALID and name the file. */
import { type FileHandle, open, stat } from "node:fs/promises";
import { type FileVersion, invalid } from "./tensor.ts";

/** Null where there is no such file. Throws MODEL_INVALID: it can't be opened, or is no file. */
export async function openFile(path: string): Promise<{ handle: FileHandle; version: FileVersion } | null> {
  const failed = (cause: NodeJS.ErrnoException) =>
    cause.code === "ENOENT" ? null : invalid(path, `can't be read: ${cause.message}`, cause);
  // Asked first: opening a pipe waits for somebody to write into it.
  const found = await stat(path).catch(failed);
  if (!found) return null;
  if (!found.isFile()) invalid(path, "is not a file");
  const handle = await open(path).catch(failed);
  return handle && { handle, version: await versionOf(handle) };
}

export async function versionOf(handle: FileHandle): Promise<FileVersion> {
  const { size, mtimeNs } = await handle.stat({ bigint: true });
  return { size: Number(size), modified: mtimeNs };
}

/** Fills `into` from `position` on. Throws MODEL_INVALID where the file ends before that. */
export async function readFully(handle: FileHandle, path: string, into: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await handle.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) invalid(path, `ended at byte ${position + done} while it was being read`);
    done += bytesRead;
  }
}

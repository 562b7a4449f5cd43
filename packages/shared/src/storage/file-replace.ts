/**
 * Putting a file in the place of another, atomically among processes.
 *
 * A version of a file is named by its ETag: modification time in nanoseconds, and size. Content and inode have no part in
 * it: listing a million images must not read them, and network file systems make inodes up. To make the time tell versions
 * apart even within one tick of the kernel's clock, a version that we write is always later than the one that it replaces.
 *
 * A file that isn't there yet is put with link(2), which fails if somebody was faster. To replace or delete version E, a
 * writer first creates the claim of E, a file that only one can create (O_EXCL), then looks whether E is still the file's
 * version, acts, and removes the claim. Those system calls are one synchronous block: other processes see it take
 * microseconds. Whoever finds E claimed waits; when E has changed, the waiting is over and lost.
 *
 * What a crash can cost: a writer killed inside the block leaves a claim of E behind. Whoever meets the very same claim for
 * STALE_MS takes E's next claim instead (`.1` after `.0`), which again only one can. So nobody ever removes another's claim
 * while E stands, and no update is lost, unless a writer is suspended inside the block for over STALE_MS and then goes on.
 * Left-over temporary files are never listed and never read; deleting them is safe when nothing runs.
 */
import { createHash, randomBytes } from "node:crypto";
import {
  type BigIntStats,
  closeSync,
  linkSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
} from "node:fs";
import { type FileHandle, mkdir, open, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { codeOf, isAbsent } from "./file-error.ts";

const TEMPORARY = ".capfleet-tmp-";
const STALE_MS = 10_000;
/** File systems without hard links answer link(2) with one of these. */
const NO_LINKS = ["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "EXDEV"];

/** Whether a file of that name is one of our temporary files, which are no objects. */
export function isTemporary(name: string): boolean {
  return name.startsWith(TEMPORARY);
}

export function etagOf(status: BigIntStats): string {
  return `${status.mtimeNs.toString(36)}-${status.size.toString(36)}`;
}

/** Writes a temporary file beside `target`, creating its folder, and has it on the disk. Returns its path. */
export async function writeTemporary(target: string, write: (file: FileHandle) => Promise<void>): Promise<string> {
  const path = join(dirname(target), `${TEMPORARY}${randomBytes(12).toString("hex")}`);
  const file = await openInFolder(path);
  try {
    try {
      await write(file);
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
  return path;
}

/**
 * Puts `temporary` at `target` if the version there is `expected` (null: if there is none). Returns the new ETag, or null
 * where the version is another. `temporary` is gone afterwards in any case.
 */
export async function replaceVersion(
  temporary: string,
  target: string,
  expected: string | null,
): Promise<string | null> {
  try {
    const etag = await place(temporary, target, expected);
    if (etag !== null) await syncFolder(dirname(target));
    return etag;
  } finally {
    rmSync(temporary, { force: true });
  }
}

/** Puts `temporary` at `target`, whatever is there. Returns the new ETag. */
export async function replaceAny(temporary: string, target: string): Promise<string> {
  try {
    let etag: string | null = null;
    while (etag === null) etag = await place(temporary, target, versionOf(target));
    await syncFolder(dirname(target));
    return etag;
  } finally {
    rmSync(temporary, { force: true });
  }
}

/** Removes the file at `target`, if there is one. */
export async function removeAny(target: string): Promise<void> {
  for (let version = versionOf(target); version !== null; version = versionOf(target)) {
    const isRemoved = await claim(target, version, () => {
      unlinkSync(target);
      return true;
    });
    if (isRemoved) return syncFolder(dirname(target));
  }
}

async function place(temporary: string, target: string, expected: string | null): Promise<string | null> {
  if (expected === null) {
    const etag = etagOf(statSync(temporary, { bigint: true }));
    try {
      linkSync(temporary, target);
      return etag;
    } catch (error) {
      const exists = codeOf(error) === "EEXIST";
      if (exists && versionOf(target) !== null) return null;
      if (!exists && !NO_LINKS.includes(codeOf(error))) throw error;
      // No hard links here, or a link to nowhere is in the way: claim the version that isn't there, and rename.
    }
  }
  return claim(target, expected, () => {
    makeLater(temporary, target);
    const etag = etagOf(statSync(temporary, { bigint: true }));
    renameSync(temporary, target);
    return etag;
  });
}

/** Acts while `expected` is the version of `target` and nobody else can act on it. Null where it is another. */
async function claim<T>(target: string, expected: string | null, act: () => T): Promise<T | null> {
  const digest = createHash("sha256")
    .update(`${basename(target)}\0${expected}`)
    .digest("hex");
  const nth = (n: number) => join(dirname(target), `${TEMPORARY}${digest.slice(0, 32)}.${n}`);
  let met = { claim: "", since: 0 };
  for (let n = 0; ; ) {
    const holder = tryClaim(nth(n));
    if (holder === "me") {
      try {
        return versionOf(target) === expected ? act() : null;
      } finally {
        for (; n >= 0; n--) rmSync(nth(n), { force: true });
      }
    }
    if (versionOf(target) !== expected) return null;
    if (holder !== met.claim) met = { claim: holder, since: performance.now() };
    else if (performance.now() - met.since > STALE_MS) n++;
    await delay(1 + 4 * Math.random());
  }
}

/** "me", or which claim is in the way. */
function tryClaim(path: string): string {
  try {
    closeSync(openSync(path, "wx"));
    return "me";
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  }
  const status = statSync(path, { bigint: true, throwIfNoEntry: false });
  return status === undefined ? "gone" : `${path} ${status.ino} ${status.mtimeNs}`;
}

/** The ETag of the file at `path`; null where there is none. */
function versionOf(path: string): string | null {
  try {
    const status = statSync(path, { bigint: true });
    return status.isFile() ? etagOf(status) : null;
  } catch (error) {
    if (isAbsent(error)) return null;
    throw error;
  }
}

/** Moves the modification time of `path` past that of `previous`, in steps that grow until the file system can tell. */
function makeLater(path: string, previous: string): void {
  const before = statSync(previous, { bigint: true, throwIfNoEntry: false })?.mtimeNs ?? 0n;
  for (let step = 1e-6; statSync(path, { bigint: true }).mtimeNs <= before; step *= 10) {
    const seconds = Number(before) / 1e9 + step;
    utimesSync(path, seconds, seconds);
  }
}

async function openInFolder(path: string): Promise<FileHandle> {
  try {
    return await open(path, "wx");
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
  const folder = dirname(path);
  const first = await mkdir(folder, { recursive: true });
  // A new folder is on the disk once the folder that it is in is.
  if (first !== undefined)
    for (let at = folder; at.length >= first.length; at = dirname(at)) await syncFolder(dirname(at));
  return open(path, "wx");
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } catch (error) {
    if (!["EINVAL", "ENOTSUP", "EBADF"].includes(codeOf(error))) throw error; // not every file system can
  } finally {
    await folder.close();
  }
}

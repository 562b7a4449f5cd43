/**
 * Remote files into a folder that appears whole or not at all. They are collected in `.partial-<name>` beside it, which
 * outlives the process: whoever comes next goes on where it stopped. Every file is flushed and then checked as it is on
 * the disk, so that neither a torn write nor a wrong byte gets further; the last step is a rename.
 */
import { constants, existsSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, statfs } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { CapfleetError, type ErrorCode } from "../contract/errors.ts";
import { checksumOf } from "./checksum.ts";
import { cacheError } from "./disk.ts";
import { doOnce } from "./lease.ts";
import type { FetchListener, RemoteFile } from "./remote.ts";

/** Failures in a row, without a byte between them, after which a file is given up. */
const ATTEMPTS = 5;
const TRANSIENT: readonly ErrorCode[] = ["HUB_UNREACHABLE", "STORE_UNAVAILABLE"];
/** What nobody went on with for so long is thrown away. */
const ABANDONED_MS = 7 * 24 * 3_600 * 1_000;
export const PARTIAL = ".partial-";
const LEASE = ".lease-";

export interface FolderFetch {
  target: string;
  files: RemoteFile[];
  /** Is shown the first of `files` before the others are downloaded. Where it throws, nothing is kept. */
  accept?(path: string): Promise<unknown>;
  /** Whether the folder at `target` is there and complete; one that is not is replaced. */
  isWhole(): Promise<boolean>;
  /** Adds what describes the folder, as the last file. */
  seal?(folder: string): Promise<void>;
}

/**
 * Several processes may want the same folder at once: one downloads, the others wait for it.
 *
 * Throws DISK_FULL, DOWNLOAD_CORRUPT, INVALID_CONFIG (the cache can't be written), and what the source or `accept`
 * throws.
 */
export async function fetchFolder(fetch: FolderFetch, listener: FetchListener): Promise<void> {
  const parent = dirname(fetch.target);
  const name = basename(fetch.target);
  try {
    await mkdir(parent, { recursive: true });
    await sweep(parent);
    await doOnce({
      path: join(parent, LEASE + name),
      isDone: fetch.isWhole,
      act: (lost) => collect(fetch, join(parent, PARTIAL + name), listener, lost),
      waiting: () => listener.note?.(`another process is downloading ${fetch.target}; waiting for it`),
    });
  } catch (thrown) {
    throw cacheError(thrown, parent);
  }
}

async function collect(
  { target, files, accept, seal }: FolderFetch,
  partial: string,
  listener: FetchListener,
  lost: AbortSignal,
) {
  await mkdir(partial, { recursive: true });
  const total = files.reduce((sum, { size }) => sum + size, 0);
  let before = 0;
  const bring = async (file: RemoteFile) => {
    const path = join(partial, file.name);
    const progress = (here: number) => listener.progress?.({ file: file.name, received: before + here, total });
    await fetchFile(path, file, lost, progress);
    before += file.size;
    return path;
  };
  const rest = [...files];
  if (accept) {
    const first = await bring(rest.shift()!);
    await accept(first).catch(async (thrown: unknown) => {
      await rm(partial, { recursive: true, force: true });
      throw thrown;
    });
  }
  const sizes = await Promise.all(files.map(({ name }) => sizeOf(join(partial, name))));
  await expectSpace(partial, total - sizes.reduce((sum, size) => sum + size, 0));
  for (const file of rest) await bring(file);
  await seal?.(partial);
  // What is there is not whole, or this would have been done: it is moved away in one step and then deleted.
  if (existsSync(target)) {
    const broken = `${partial}.broken`;
    await rm(broken, { recursive: true, force: true });
    await rename(target, broken);
    await rm(broken, { recursive: true, force: true });
  }
  await rename(partial, target);
  await syncFolder(dirname(target));
}

/** Until it is whole and right. A file that is wrong is deleted and downloaded once more, from its beginning. */
async function fetchFile(path: string, file: RemoteFile, lost: AbortSignal, progress: (here: number) => void) {
  let failures = 0;
  for (let wrong = 0; ; ) {
    const before = await sizeOf(path);
    try {
      await append(path, before, file, lost, progress);
      await verify(path, file);
      return;
    } catch (thrown) {
      lost.throwIfAborted();
      if (!(thrown instanceof CapfleetError)) throw thrown;
      if (thrown.code === "DOWNLOAD_CORRUPT") {
        await rm(path, { force: true });
        wrong += 1;
        if (wrong === 2) throw thrown;
        continue;
      }
      failures = (await sizeOf(path)) > before ? 1 : failures + 1;
      if (!TRANSIENT.includes(thrown.code) || failures === ATTEMPTS) throw thrown;
      await delay(250 * 2 ** failures * (1 + Math.random()), undefined, { signal: lost });
    }
  }
}

async function append(
  path: string,
  start: number,
  { name, size, open: read }: RemoteFile,
  lost: AbortSignal,
  progress: (here: number) => void,
): Promise<void> {
  progress(Math.min(start, size));
  // Not truncated and written by position: see lease.ts for why two processes may be at it.
  const file = await open(path, constants.O_CREAT | constants.O_WRONLY);
  try {
    if (start > size) throw new CapfleetError("DOWNLOAD_CORRUPT", `${path} has more than the ${size} bytes of ${name}`);
    let at = start;
    for await (const chunk of start < size ? read(start, lost) : []) {
      if (at + chunk.length > size) {
        throw new CapfleetError("DOWNLOAD_CORRUPT", `${name}: more than its ${size} bytes have been sent`);
      }
      for (let done = 0; done < chunk.length; ) {
        done += (await file.write(chunk, done, chunk.length - done, at + done)).bytesWritten;
      }
      at += chunk.length;
      progress(at);
      lost.throwIfAborted();
    }
    if (at < size) throw new CapfleetError("DOWNLOAD_CORRUPT", `${name}: ${at} of its ${size} bytes have been sent`);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function verify(path: string, { name, checksum }: RemoteFile): Promise<void> {
  if (checksum === null) return;
  const found = await checksumOf(path, checksum.kind);
  if (found === checksum.hex) return;
  const kind = checksum.kind === "git" ? "git blob id" : checksum.kind;
  throw new CapfleetError("DOWNLOAD_CORRUPT", `${name}: its ${kind} is ${found}, and should be ${checksum.hex}`);
}

async function expectSpace(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize, blocks } = await statfs(folder);
  const free = bavail * bsize;
  // A file system that does not know its size says 0.
  if (blocks === 0 || bytes <= free) return;
  throw new CapfleetError("DISK_FULL", `${dirname(folder)}: ${bytes} bytes are to be written, and ${free} are free`);
}

async function sweep(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (!name.startsWith(PARTIAL)) continue;
    const folder = join(parent, name);
    const files = await readdir(folder).catch(() => []);
    const times = await Promise.all([folder, ...files.map((file) => join(folder, file))].map(touched));
    if (Date.now() - Math.max(...times) > ABANDONED_MS) await rm(folder, { recursive: true, force: true });
  }
}

/** When it was last written, in ms; a file that has just gone, now. */
const touched = (path: string) =>
  stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => Date.now(),
  );

const sizeOf = (path: string) =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  );

/** A rename is on the disk once its folder is. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } catch (thrown) {
    // Not every file system can.
    if (!["EINVAL", "ENOTSUP", "EBADF"].includes((thrown as NodeJS.ErrnoException).code ?? "")) throw thrown;
  } finally {
    await folder.close();
  }
}

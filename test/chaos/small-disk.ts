/** A disk of a few megabytes that can be made full: a tmpfs, as root on Linux. */
import { execFile } from "node:child_process";
import { mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const CHUNK = Buffer.alloc(64 * 1024);

export class SmallDisk {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Throws where the machine does not allow it. */
  static async mount(folder: string, megabytes: number): Promise<SmallDisk> {
    await mkdir(folder, { recursive: true });
    await run("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m,mode=1777`, "capfleet-test", folder]);
    return new SmallDisk(folder);
  }

  /** Leaves not a byte. What others have open there stays theirs. */
  async fill(): Promise<void> {
    const file = await open(this.#filler, "w");
    try {
      for (;;) await file.write(CHUNK);
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== "ENOSPC") throw thrown;
    } finally {
      await file.close();
    }
  }

  async clear(): Promise<void> {
    await rm(this.#filler, { force: true });
  }

  async unmount(): Promise<void> {
    // Lazily: the kernel may still be closing the files of a process that has just been killed.
    await run("umount", ["--lazy", this.folder]);
  }

  get #filler(): string {
    return join(this.folder, "filler");
  }
}

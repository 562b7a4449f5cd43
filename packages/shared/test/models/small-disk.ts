/** A file system in memory with little room, for tests of what happens when a disk is full. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Null where there can be one. */
export function whyNoSmallDisk(): string | null {
  if (process.platform !== "linux" || process.getuid!() !== 0) return "needs root, on Linux, to mount a small disk";
  const folder = mkdtempSync(join(tmpdir(), "capfleet-disk-"));
  const status = mount(folder, 1_000_000);
  if (status === 0) unmount(folder);
  rmdirSync(folder);
  return status === 0 ? null : "mounting a small disk is not allowed here";
}

/** Its exit code. */
export function mount(folder: string, bytes: number): number | null {
  return spawnSync("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", folder]).status;
}

export function unmount(folder: string): void {
  spawnSync("umount", [folder]);
}

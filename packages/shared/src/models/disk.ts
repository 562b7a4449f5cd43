/** What the operating system says about the cache's folder, as an error that says what to do about it. */
import { CapfleetError } from "../contract/errors.ts";

/** A failed system call below `folder`. What is none comes back as it is. */
export function cacheError(thrown: unknown, folder: string): unknown {
  if ((thrown as NodeJS.ErrnoException | undefined)?.syscall === undefined) return thrown;
  const { message } = thrown as Error;
  const unusable = `CAPFLEET_CACHE: ${folder} can't be used: ${message}`;
  return diskFull(thrown, folder) ?? new CapfleetError("INVALID_CONFIG", unusable, { cause: thrown });
}

/** DISK_FULL where a system call failed for want of space; else null. */
export function diskFull(thrown: unknown, folder: string): CapfleetError | null {
  const code = (thrown as NodeJS.ErrnoException | undefined)?.code;
  if (code !== "ENOSPC" && code !== "EDQUOT") return null;
  const what = code === "ENOSPC" ? "the disk is full" : "the disk quota is used up";
  return new CapfleetError("DISK_FULL", `${folder}: ${what}`, { cause: thrown });
}

/** What the operating system says about a file, as an error with a code. */
import { CapfleetError, type ErrorCode } from "../contract/errors.ts";

/** There is no such object: also where the path runs through a file, ends in a folder, or is longer than any file's. */
const ABSENT = ["ENOENT", "ENOTDIR", "EISDIR", "ELOOP", "ENAMETOOLONG", "ENXIO"];

const CODES: Record<string, [ErrorCode, string]> = {
  EACCES: ["STORE_ACCESS_DENIED", "permission denied"],
  EPERM: ["STORE_ACCESS_DENIED", "permission denied"],
  EROFS: ["STORE_ACCESS_DENIED", "the file system is read-only"],
  ENOTDIR: ["INVALID_URI", "a part of the path is a file, not a folder"],
  EISDIR: ["INVALID_URI", "there is a folder of that name"],
  ENOTEMPTY: ["INVALID_URI", "there is a folder of that name"],
  ENAMETOOLONG: ["INVALID_URI", "the name is too long for the file system"],
  ELOOP: ["INVALID_URI", "the path goes round in symbolic links"],
  ENOENT: ["OBJECT_NOT_FOUND", "no such file"],
  ENOSPC: ["STORE_UNAVAILABLE", "the disk is full"],
  EDQUOT: ["STORE_UNAVAILABLE", "the disk quota is used up"],
  EMFILE: ["STORE_UNAVAILABLE", "this process has too many open files (see `ulimit -n`)"],
  ENFILE: ["STORE_UNAVAILABLE", "the system has too many open files"],
};

export function isAbsent(error: unknown): boolean {
  return ABSENT.includes(codeOf(error));
}

/** The error code of a failed system call, such as ENOENT; empty for any other error. */
export function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException | undefined)?.code ?? "";
}

/** A failed read or listing of `uri`. */
export function readError(error: unknown, uri: string): unknown {
  if (isAbsent(error)) return new CapfleetError("OBJECT_NOT_FOUND", `${uri}: no such file`, { cause: error });
  return writeError(error, uri);
}

/** A failed write to `uri`. What is no failed system call (an abort, a bug) comes back as it is. */
export function writeError(error: unknown, uri: string): unknown {
  const { syscall, message } = error as NodeJS.ErrnoException;
  if (syscall === undefined) return error;
  const [code, what] = CODES[codeOf(error)] ?? ["STORE_UNAVAILABLE", message];
  return new CapfleetError(code, `${uri}: ${what} (${codeOf(error)})`, { cause: error });
}

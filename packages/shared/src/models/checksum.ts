/** The sum of a file as it is on the disk. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import type { Checksum } from "./remote.ts";

const READ_BYTES = 1 << 20;

/** In hexadecimal. */
export async function checksumOf(path: string, kind: Checksum["kind"]): Promise<string> {
  const hash = createHash(kind === "git" ? "sha1" : "sha256");
  // git names a blob by the sha1 of "blob", its size, a NUL, and its bytes.
  if (kind === "git") hash.update(`blob ${(await stat(path)).size}\0`);
  for await (const chunk of createReadStream(path, { highWaterMark: READ_BYTES })) hash.update(chunk);
  return hash.digest("hex");
}

/** Reads a checkpoint's JSON files, checked against a schema. Errors name the file and the field. */
import { readFile, stat } from "node:fs/promises";
import { CapfleetError } from "@capfleet/shared/contract";
import type * as z from "zod";

/** Bytes. The largest of these files are tokenizers: 1 MB for BLIP, 5 MB for the 120,000 words of multilingual BERT. */
const MAX_TEXT = 8 << 20;

/** Throws MODEL_INVALID: missing, not JSON, or not what the schema says. */
export async function readJson<T>(file: string, schema: z.ZodType<T>): Promise<T> {
  const content = await readOptionalJson(file, schema);
  if (content === null) throw new CapfleetError("MODEL_INVALID", `${file} is missing`);
  return content;
}

/** Null where there is no such file. Throws MODEL_INVALID. */
export async function readOptionalJson<T>(file: string, schema: z.ZodType<T>): Promise<T | null> {
  const text = await readOptionalText(file);
  if (text === null) return null;
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (cause) {
    throw new CapfleetError("MODEL_INVALID", `${file} is not JSON: ${(cause as Error).message}`, { cause });
  }
  const parsed = schema.safeParse(content);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  throw new CapfleetError("MODEL_INVALID", `${file}: ${path.length > 0 ? `${path.join(".")}: ` : ""}${message}`);
}

/** Null where there is no such file. Throws MODEL_INVALID: it can't be read, or is too large to be what it should be. */
export async function readOptionalText(file: string): Promise<string | null> {
  try {
    const { size } = await stat(file);
    if (size <= MAX_TEXT) return await readFile(file, "utf8");
    throw new Error(`it has ${size} bytes, at most ${MAX_TEXT} are read`);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new CapfleetError("MODEL_INVALID", `${file} can't be read: ${(cause as Error).message}`, { cause });
  }
}

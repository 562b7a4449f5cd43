/** A dataset is read in a heap that would not hold its records. */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { writeManifest, writeTar } from "../../../../test/support/large-inputs.ts";

/** Kept in an array, they run out of this heap. */
const RECORDS = 250_000;
const HEAP_MB = 64;
const run = promisify(execFile);
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-memory-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function read(kind: string, name: string): Promise<number> {
  const script = join(import.meta.dirname, "reader-process.ts");
  const args = [`--max-old-space-size=${HEAP_MB}`, script, kind, join(folder, name)];
  return Number((await run(process.execPath, args)).stdout);
}

test.each(["jsonl", "csv", "parquet", "tar"])(
  "%s",
  async (ending) => {
    const name = `list.${ending}`;
    await (ending === "tar" ? writeTar : writeManifest)(join(folder, name), RECORDS);
    const kind = ending === "tar" ? "webdataset" : ending;
    expect(await read(kind, name)).toBe(RECORDS);
  },
  120_000,
);

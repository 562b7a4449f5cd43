/** Vitest's global setup: a cache for the whole run, in place of the user's, which it must neither trust nor fill. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export default async function setup(): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), "capfleet-cache-"));
  // The processes that run the tests, and all that these start, inherit it.
  process.env.CAPFLEET_CACHE = folder;
  // Most of what a process computes until it is ready is the compilation of its modules: two thirds are left of it.
  process.env.NODE_COMPILE_CACHE = join(folder, "modules");
  // A process that is just ending may write there still.
  return () => rm(folder, { recursive: true, force: true, maxRetries: 10 });
}

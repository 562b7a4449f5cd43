/** Vitest's global setup: a cache for the whole run, in place of the user's, which it must neither trust nor fill. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export default async function setup(): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), "capfleet-cache-"));
  // The processes that run the tests, and all that these start, inherit it.
  process.env.CAPFLEET_CACHE = folder;
  return () => rm(folder, { recursive: true, force: true });
}

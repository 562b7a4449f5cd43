/** A job's objects of lines: shards and results. */
import type { Store } from "@capfleet/shared/storage";

/** All lines of an object, in memory. */
export async function readLines<Line>(store: Store, key: string): Promise<Line[]> {
  return parseLines((await store.read(key)).bytes);
}

export function parseLines<Line>(bytes: Buffer): Line[] {
  const lines = bytes.toString("utf8").trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as Line);
}

/** A job's objects of lines: shards and results. */
import type { Store } from "@capfleet/shared/storage";

/** All lines of an object, in memory, as the JSON that they are. */
export async function readTexts(store: Store, key: string): Promise<string[]> {
  return split((await store.read(key)).bytes);
}

export async function readLines<Line>(store: Store, key: string): Promise<Line[]> {
  return parseLines((await store.read(key)).bytes);
}

export const parseLines = <Line>(bytes: Buffer): Line[] => split(bytes).map((line) => JSON.parse(line) as Line);

const split = (bytes: Buffer): string[] => bytes.toString("utf8").trimEnd().split("\n");

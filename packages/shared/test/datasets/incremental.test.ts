/** The merge-join of a listing with an index, against the plain definition of what it should give. */
import { afterAll, describe, expect, test } from "vitest";
import { type Cursor, datasetLayout, type IndexEntry } from "../../src/contract/index.ts";
import { type Entry, incrementalDataset } from "../../src/datasets/index.ts";
import { compareKeys, type Store } from "../../src/storage/index.ts";
import { backends } from "../storage/backends.ts";

/** Neighbours in one order that are none in another: UTF-8 and UTF-16, a folder's slash, accents, what JSON escapes. */
const NAMES = [
  "a.jpg",
  "a/b.jpg",
  "a/b/c.jpg",
  "a-b.jpg",
  "a0.jpg",
  "A.JPG",
  "a b?#%25+.png",
  'quote".webp',
  "back\\slash.gif",
  "new\nline.jpg",
  "e\u0301.jpg",
  "é.jpg",
  "\u2028.jpg",
  "\ud7ff.jpg",
  "\ue000.jpg",
  "\uffff.jpg",
  "\u{10000}.jpg",
  "\u{10ffff}.jpg",
  "🦊.jpg",
  "東京/🦊.avif",
];
const NO_IMAGES = ["a.txt", "a/b.json", "\u{10000}.csv"];

/** A generator of random numbers that gives the same ones every time (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

async function all(dataset: ReturnType<typeof incrementalDataset>, cursor: Cursor | null = null): Promise<Entry[]> {
  return (await Array.fromAsync(dataset.entries(cursor))).flat();
}

/** Writes an index with parts of up to three entries. */
async function writeIndex(root: Store, name: string, entries: IndexEntry[]): Promise<void> {
  for (let n = 0; n * 3 < entries.length; n++) {
    const lines = entries.slice(n * 3, n * 3 + 3).map((entry) => `${JSON.stringify(entry)}\n`);
    await root.put(datasetLayout.indexPart(name, n), lines.join(""));
  }
}

describe.each(backends())("on $name", (backend) => {
  afterAll(() => backend.close());

  test.skipIf(backend.isMissing)(
    "only what the index does not have as it is, in order, resumable anywhere",
    async () => {
      const { store: source } = await backend.open();
      const { store: root } = await backend.open();
      const etags = new Map<string, string>();
      for (const key of [...NAMES, ...NO_IMAGES]) etags.set(key, await source.put(key, `picture of ${key}`));
      const sorted = NAMES.toSorted(compareKeys);
      expect(sorted).not.toEqual(NAMES.toSorted());

      for (let round = 0; round < 12; round++) {
        const next = random(round);
        const expected: string[] = [];
        const entries: IndexEntry[] = [];
        for (const [row, key] of [...sorted, ...NO_IMAGES, "gone.jpg", "\u{1ffff}gone.jpg"]
          .sort(compareKeys)
          .entries()) {
          const isImage = NAMES.includes(key);
          const drawn = next();
          // A third is as it was, a third another, a third new; of what is no image any more, some are in the index.
          const etag = drawn < 0.34 && isImage ? etags.get(key)! : "another";
          if (isImage && etag !== etags.get(key)) expected.push(key);
          if (drawn < 0.67) entries.push({ key, etag, run: "r", shard: 0, row });
        }
        await writeIndex(root, `r${round}`, entries);
        const dataset = incrementalDataset(source, root, `r${round}`);
        const found = await all(dataset);
        const images = expected.map((key) => ({ id: key, image: source.uriOf(key), etag: etags.get(key) }));
        expect(found.map(({ record }) => record)).toEqual(images);
        if (round % 4 > 0) continue;
        for (const [i, { cursor }] of found.entries()) {
          const rest = await all(dataset, cursor);
          expect(rest).toEqual(found.slice(i + 1));
        }
      }
    },
  );

  test.skipIf(backend.isMissing)("without an index everything is new; with a whole one nothing", async () => {
    const { store: source } = await backend.open();
    const { store: root } = await backend.open();
    const entries: IndexEntry[] = [];
    for (const [row, key] of NAMES.toSorted(compareKeys).entries()) {
      entries.push({ key, etag: await source.put(key, key), run: "r", shard: 0, row });
    }
    await writeIndex(root, "whole", entries);
    expect(await all(incrementalDataset(source, root, null))).toHaveLength(NAMES.length);
    expect(await all(incrementalDataset(source, root, "whole"))).toEqual([]);
    const { etag } = entries[7]!;
    expect(await source.put(entries[7]!.key, "another picture")).not.toBe(etag);
    expect((await all(incrementalDataset(source, root, "whole"))).map(({ record }) => record.id)).toEqual([
      entries[7]!.key,
    ]);
  });

  test.skipIf(backend.isMissing)("resumed, it reads the end of the index only", async () => {
    const { store: source } = await backend.open();
    const { store: root } = await backend.open();
    const keys = Array.from({ length: 90 }, (_, n) => `${String(n).padStart(3, "0")}.jpg`);
    const entries = keys.map((key, row) => ({ key, etag: "x", run: "r", shard: 0, row }));
    await writeIndex(root, "r", entries);
    await source.put(keys[80]!, "new");
    const read: string[] = [];
    const watched = new Proxy(root, {
      get: (target, property) => {
        const value = Reflect.get(target, property);
        if (typeof value !== "function") return value;
        return (...args: unknown[]) => {
          if (property === "read") read.push(args[0] as string);
          return value.apply(target, args);
        };
      },
    });
    const after: Cursor = { source: "prefix", after: keys[70]! };
    expect(await all(incrementalDataset(source, watched, "r"), after)).toHaveLength(1);
    // Key 71 is in part 23 of 30, and key 80, the last that is asked for, in part 26.
    expect(read).toEqual([23, 24, 25, 26].map((n) => datasetLayout.indexPart("r", n)));
  });

  test.skipIf(backend.isMissing)("an index that has lost a part is not taken for a smaller one", async () => {
    const { store: source } = await backend.open();
    const { store: root } = await backend.open();
    const entries = NAMES.toSorted(compareKeys).map((key, row) => ({ key, etag: "x", run: "r", shard: 0, row }));
    await writeIndex(root, "r", entries);
    await source.put("a.jpg", "x");
    await root.delete(datasetLayout.indexPart("r", 2));
    const failure = { code: "OBJECT_NOT_FOUND", message: expect.stringContaining("000002.jsonl is gone") };
    await expect(all(incrementalDataset(source, root, "r"))).rejects.toMatchObject(failure);
  });
});

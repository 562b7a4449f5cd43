/** What the tests of manifests have in common. */
import { expect } from "vitest";
import type { Cursor, InputRecord, JobTaskSpec } from "../../src/contract/index.ts";
import { checkManifest, type Entry, type ManifestKind, manifestDataset } from "../../src/datasets/index.ts";
import type { Stores } from "../../src/storage/index.ts";
import { caption } from "./tasks.ts";

export class Manifest {
  readonly #input: Parameters<typeof manifestDataset>[0];
  readonly #stores: Stores;
  readonly #task: JobTaskSpec;

  constructor(stores: Stores, uri: string, { task = caption, image = "image", id = "id", keep = [] as string[] } = {}) {
    const ending = uri.endsWith("/") ? "parquet" : uri.slice(uri.lastIndexOf(".") + 1);
    const kind = (ending === "tsv" ? "csv" : ending) as ManifestKind;
    this.#input = { kind, uri, columns: { image, id }, keep };
    this.#stores = stores;
    this.#task = task;
  }

  async entries(cursor: Cursor | null = null): Promise<Entry[]> {
    const entries: Entry[] = [];
    for await (const chunk of manifestDataset(this.#input, this.#stores, this.#task).entries(cursor)) {
      entries.push(...chunk);
    }
    return entries;
  }

  async records(): Promise<InputRecord[]> {
    return (await this.entries()).map(({ record }) => record);
  }

  check(): Promise<void> {
    return checkManifest(this.#input, this.#stores, this.#task);
  }

  /** From after every `step`-th record, and the last ones, the rest is the same. */
  async expectResumable(step = 1): Promise<void> {
    const entries = await this.entries();
    for (const [i, { cursor }] of entries.entries()) {
      if (i % step !== 0 && i < entries.length - 3) continue;
      // The cursor as a shard's file has it.
      expect(await this.entries(JSON.parse(JSON.stringify(cursor)))).toEqual(entries.slice(i + 1));
    }
  }
}

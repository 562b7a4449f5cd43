/** Where the images of a job's rows are. A page of pictures asks for one shard many times: the last few are kept. */
import { CapfleetError, type InputRecord, layout } from "@capfleet/shared/contract";
import type { ImageSource } from "@capfleet/shared/datasets";
import type { Store } from "@capfleet/shared/storage";
import { readTexts } from "../jobs/lines.ts";

const SHARDS_KEPT = 16;

export class RecordImages {
  /** By job and shard, the last used at the end. What a shard plans never changes. */
  readonly #shards = new Map<string, Promise<ImageSource[]>>();

  /** Of the record in the line `line` (from 0) of a shard. Throws ROW_NOT_FOUND, and the store's errors. */
  async find(job: string, store: Store, shard: number, line: number): Promise<ImageSource> {
    const name = `${job}.${shard}`;
    const reading = this.#shards.get(name) ?? readImages(store, shard);
    this.#shards.delete(name);
    this.#shards.set(name, reading);
    reading.catch(() => this.#shards.delete(name));
    if (this.#shards.size > SHARDS_KEPT) this.#shards.delete(this.#shards.keys().next().value!);
    const source = (await reading)[line];
    if (!source?.image) throw notFound(`${shard}.${line}`);
    return source;
  }
}

async function readImages(store: Store, shard: number): Promise<ImageSource[]> {
  try {
    const planned = await readTexts(store, layout.shard(shard));
    return planned.slice(0, -1).map((text) => {
      const { image, member } = JSON.parse(text) as InputRecord;
      return { image, ...(member && { member }) };
    });
  } catch (thrown) {
    if (thrown instanceof CapfleetError && thrown.code === "OBJECT_NOT_FOUND") throw notFound(String(shard));
    throw thrown;
  }
}

const notFound = (position: string) => new CapfleetError("ROW_NOT_FOUND", `the job has no picture at ${position}`);

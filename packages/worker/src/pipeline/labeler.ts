/**
 * From a record to its label: fetch → decode → batch → infer, for all shards and jobs at once. Each stage has its own
 * bound; `admit` bounds the whole, so that decode runs ahead of inference by a few batches and no more.
 */
import { availableParallelism } from "node:os";
import { CapfleetError, type InputRecord, type JobFile, type ResultRow } from "@capfleet/shared/contract";
import type { Stores } from "@capfleet/shared/storage";
import pLimit, { type LimitFunction } from "p-limit";
import type { EngineHost } from "../engine/host.ts";
import { decode } from "../pixels/index.ts";
import { Batcher } from "./batcher.ts";
import { Budget } from "./budget.ts";
import { fetchImage } from "./fetch.ts";

/** Encoded images in memory. */
const FETCHED_BYTES = 256 * 1024 * 1024;
/** How long a partial batch waits for company while the engine is idle. */
const BATCH_WAIT_MS = 10;
/** Batches that fetch and decode may be ahead of inference. */
const BATCHES_AHEAD = 4;

export interface Limits {
  maxImageBytes: number;
  maxImagePixels: number;
}

export class Labeler {
  readonly admit: LimitFunction;
  readonly #decoding: LimitFunction = pLimit(availableParallelism());
  readonly #budget = new Budget(FETCHED_BYTES);
  readonly #batchers = new Map<string, { batcher: Batcher; image: { width: number; height: number } }>();
  readonly #stores: Stores;
  readonly #limits: Limits;

  constructor(host: EngineHost, stores: Stores, limits: Limits) {
    this.#stores = stores;
    this.#limits = limits;
    let largest = 0;
    for (const [i, { ref, image, batchSizes }] of host.infos.entries()) {
      this.#batchers.set(ref.digest, { batcher: new Batcher(host, i, BATCH_WAIT_MS), image });
      largest = Math.max(largest, batchSizes.at(-1)!);
    }
    this.admit = pLimit(largest * BATCHES_AHEAD);
  }

  /** The task's fields of a row. Throws row errors and shard errors. */
  async label(_record: InputRecord, uri: string, job: JobFile, signal: AbortSignal): Promise<Partial<ResultRow>> {
    const { engine, decoding } = job.spec;
    const found = this.#batchers.get(engine.digest);
    if (!found) throw new CapfleetError("ENGINE_FAILED", `this worker does not run ${engine.model} (${engine.digest})`);
    const { maxImageBytes, maxImagePixels } = this.#limits;
    const { bytes, release } = await fetchImage(uri, this.#stores, maxImageBytes, this.#budget, signal);
    const pixels = await this.#decoding(() => decode(bytes, found.image, { maxPixels: maxImagePixels })).finally(
      release,
    );
    const { text, score } = await found.batcher.caption(pixels, decoding);
    return { caption: text, score };
  }
}

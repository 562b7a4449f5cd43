/**
 * Forms batches out of single images, whatever shard or job they come from. Images with the same decoding share a
 * batch. A batch leaves when it is full; a partial one leaves when the engine has nothing to do and its oldest image
 * has waited `maxWaitMs` (while the engine is busy, waiting costs nothing and filling up is better).
 *
 * Pixels wait in slabs: shared memory of one full batch each. Two may be with the engine (one running, one next) while
 * a third fills; without a free slab images wait in `#pending`, which is as long as the pipeline's look-ahead.
 */
import { CapfleetError, type Decoding } from "@capfleet/shared/contract";
import type { CaptionOutput } from "../engine/engine.ts";
import type { EngineHost } from "../engine/host.ts";

const SLABS = 3;

interface Item {
  pixels: Uint8Array;
  decoding: Decoding;
  key: string;
  since: number;
  resolve(output: CaptionOutput): void;
  reject(error: CapfleetError): void;
}

interface Batch {
  key: string;
  slab: SharedArrayBuffer;
  items: Item[];
}

export class Batcher {
  readonly #host: Pick<EngineHost, "run" | "infos">;
  readonly #engine: number;
  readonly #capacity: number;
  readonly #imageBytes: number;
  readonly #maxWaitMs: number;
  readonly #free: SharedArrayBuffer[];
  readonly #filling = new Map<string, Batch>();
  readonly #pending: Item[] = [];
  #running = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(host: Pick<EngineHost, "run" | "infos">, engine: number, maxWaitMs: number) {
    const info = host.infos[engine]!;
    this.#host = host;
    this.#engine = engine;
    this.#maxWaitMs = maxWaitMs;
    this.#capacity = info.batchSizes.at(-1)!;
    this.#imageBytes = info.image.width * info.image.height * 3;
    this.#free = Array.from({ length: SLABS }, () => new SharedArrayBuffer(this.#capacity * this.#imageBytes));
  }

  /**
   * `pixels`: uint8 RGB, [height, width, 3], at the engine's size. Throws INFERENCE_FAILED where the engine fails on this
   * image alone, ENGINE_FAILED where it fails on everything.
   */
  caption(pixels: Uint8Array, decoding: Decoding): Promise<CaptionOutput> {
    return new Promise((resolve, reject) => {
      const key = JSON.stringify(decoding);
      this.#pending.push({ pixels, decoding, key, since: performance.now(), resolve, reject });
      this.#fill();
    });
  }

  /** Moves waiting images into slabs as far as there are any, and sends what is full. */
  #fill(): void {
    while (this.#pending.length > 0) {
      const { key } = this.#pending[0]!;
      const batch = this.#filling.get(key) ?? this.#open(key);
      if (!batch) return;
      const item = this.#pending.shift()!;
      new Uint8Array(batch.slab).set(item.pixels, batch.items.length * this.#imageBytes);
      item.pixels = EMPTY;
      batch.items.push(item);
      if (batch.items.length === this.#capacity) this.#send(batch);
    }
    this.#watch();
  }

  #open(key: string): Batch | null {
    const slab = this.#free.pop();
    if (slab) {
      const batch = { key, slab, items: [] };
      this.#filling.set(key, batch);
      return batch;
    }
    // All slabs are partial batches of other kinds, and nothing runs that could free one: the oldest has to go.
    if (this.#running === 0) this.#sendOldest();
    return null;
  }

  /** Sends the oldest partial batch as soon as the engine is idle and the batch has waited long enough. */
  #watch(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    const oldest = this.#oldest();
    if (this.#running > 0 || !oldest) return;
    const left = oldest.items[0]!.since + this.#maxWaitMs - performance.now();
    if (left <= 0) this.#send(oldest);
    else this.#timer = setTimeout(() => this.#watch(), left);
  }

  #oldest(): Batch | null {
    let oldest: Batch | null = null;
    for (const batch of this.#filling.values()) {
      if (!oldest || batch.items[0]!.since < oldest.items[0]!.since) oldest = batch;
    }
    return oldest;
  }

  #sendOldest(): void {
    const oldest = this.#oldest();
    if (oldest) this.#send(oldest);
  }

  #send(batch: Batch): void {
    this.#filling.delete(batch.key);
    this.#running += 1;
    this.#settle(batch).finally(() => {
      this.#running -= 1;
      this.#free.push(batch.slab);
      this.#fill();
    });
  }

  async #settle({ slab, items }: Batch): Promise<void> {
    const outcomes = await this.#runBisecting(slab, 0, items);
    const failed = outcomes.filter((outcome) => outcome instanceof CapfleetError).length;
    // One bad record is the record's fault; a batch in which nothing works is the engine's.
    const engineFault = failed === items.length && items.length > 1;
    for (const [i, outcome] of outcomes.entries()) {
      const item = items[i]!;
      if (!(outcome instanceof CapfleetError)) item.resolve(outcome);
      else if (engineFault) item.reject(outcome);
      else item.reject(new CapfleetError("INFERENCE_FAILED", outcome.message, { cause: outcome }));
    }
  }

  async #runBisecting(
    slab: SharedArrayBuffer,
    first: number,
    items: Item[],
  ): Promise<(CaptionOutput | CapfleetError)[]> {
    const { decoding } = items[0]!;
    try {
      return await this.#host.run({ engine: this.#engine, slab, first, count: items.length, decoding });
    } catch (thrown) {
      if (items.length === 1) return [thrown as CapfleetError];
      const half = items.length >> 1;
      const left = await this.#runBisecting(slab, first, items.slice(0, half));
      const right = await this.#runBisecting(slab, first + half, items.slice(half));
      return [...left, ...right];
    }
  }
}

const EMPTY = new Uint8Array(0);

/**
 * Forms batches out of single records, whatever shard or job they come from. Records with the same task and options share
 * a batch. A batch leaves when it is full (of images, or of texts to read with them); a partial one leaves when the engine
 * has nothing to do and its oldest record has waited `maxWaitMs` (while the engine is busy, waiting costs nothing and
 * filling up is better).
 *
 * Pixels wait in slabs: shared memory of one full batch each. Two may be with the engine (one running, one next) while
 * a third fills; without a free slab records wait in `#pending`, which is as long as the pipeline's look-ahead. A batch
 * of texts alone needs no slab.
 *
 * Records that somebody waits for have a batcher of their own beside the engine's bulk one, with slabs of its own, so that
 * they queue behind no bulk record. Its batches are urgent: the engine runs them next. A partial one leaves as soon as none
 * of them is with the engine, and its room goes to waiting bulk records of the same task, which lose nothing that way.
 */
import { CapfleetError, needsImage, type TaskSpec } from "@capfleet/shared/contract";
import type { Item, Output } from "../engine/engine.ts";
import type { EngineHost } from "../engine/host.ts";

const SLABS = 3;
/** One with the engine while another fills. */
const URGENT_SLABS = 2;
/** Questions or texts of a batch, unless one record alone has more. */
const MAX_BATCH_TEXTS = 64;

/** A task, and a key that is the same for the same task of another job. */
export interface KeyedTask {
  key: string;
  spec: TaskSpec;
}

interface Waiting {
  task: KeyedTask;
  item: Item;
  pixels: Uint8Array;
  since: number;
  resolve(output: Output): void;
  reject(error: CapfleetError): void;
}

interface Batch {
  task: KeyedTask;
  slab: SharedArrayBuffer | null;
  records: Waiting[];
  texts: number;
}

export class Batcher {
  readonly #host: Pick<EngineHost, "label" | "infos">;
  readonly #engine: number;
  readonly #capacity: number;
  readonly #imageBytes: number;
  readonly #maxWaitMs: number;
  readonly #bulk: Batcher | null;
  readonly #free: SharedArrayBuffer[];
  readonly #filling = new Map<string, Batch>();
  readonly #pending: Waiting[] = [];
  #running = 0;
  #timer: NodeJS.Timeout | null = null;

  /** `bulk`: makes this the batcher of urgent records, beside that one. */
  constructor(
    host: Pick<EngineHost, "label" | "infos">,
    engine: number,
    maxWaitMs: number,
    bulk: Batcher | null = null,
  ) {
    const info = host.infos[engine]!;
    this.#host = host;
    this.#engine = engine;
    this.#maxWaitMs = maxWaitMs;
    this.#bulk = bulk;
    this.#capacity = info.batch;
    this.#imageBytes = info.image.width * info.image.height * 3;
    const slabs = bulk ? URGENT_SLABS : SLABS;
    this.#free = Array.from({ length: slabs }, () => new SharedArrayBuffer(this.#capacity * this.#imageBytes));
  }

  /**
   * `pixels`: uint8 RGB, [height, width, 3], at the engine's size; empty for a task that looks at no image. Throws
   * INFERENCE_FAILED where the engine fails on this record alone, ENGINE_FAILED where it fails on everything,
   * INVALID_OPTION where the model can't do what the task asks.
   */
  label(task: KeyedTask, item: Item, pixels: Uint8Array): Promise<Output> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ task, item, pixels, since: performance.now(), resolve, reject });
      this.#fill();
    });
  }

  /** Moves waiting records into batches as far as there are slabs, and sends what is full. */
  #fill(): void {
    while (this.#pending.length > 0) {
      const { task, item } = this.#pending[0]!;
      const begun = this.#filling.get(task.key);
      const overflows = begun !== undefined && begun.texts + item.texts.length > MAX_BATCH_TEXTS;
      if (overflows) this.#send(begun);
      const batch = begun && !overflows ? begun : this.#open(task);
      if (!batch) return;
      this.#put(this.#pending.shift()!, batch);
      if (batch.records.length === this.#capacity) this.#send(batch);
    }
    this.#watch();
  }

  #put(waiting: Waiting, batch: Batch): void {
    if (batch.slab) new Uint8Array(batch.slab).set(waiting.pixels, batch.records.length * this.#imageBytes);
    waiting.pixels = EMPTY;
    batch.records.push(waiting);
    batch.texts += waiting.item.texts.length;
  }

  #open(task: KeyedTask): Batch | null {
    const slab = needsImage(task.spec) ? this.#free.pop() : null;
    if (slab !== undefined) {
      const batch = { task, slab, records: [], texts: 0 };
      this.#filling.set(task.key, batch);
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
    const left = oldest.records[0]!.since + this.#maxWaitMs - performance.now();
    if (left <= 0) this.#send(oldest);
    else this.#timer = setTimeout(() => this.#watch(), left);
  }

  #oldest(): Batch | null {
    let oldest: Batch | null = null;
    for (const batch of this.#filling.values()) {
      if (!oldest || batch.records[0]!.since < oldest.records[0]!.since) oldest = batch;
    }
    return oldest;
  }

  #sendOldest(): void {
    const oldest = this.#oldest();
    if (oldest) this.#send(oldest);
  }

  #send(batch: Batch): void {
    this.#filling.delete(batch.task.key);
    if (this.#bulk) this.#bulk.#moveTo(batch);
    this.#running += 1;
    this.#settle(batch).finally(() => {
      this.#running -= 1;
      if (batch.slab) this.#free.push(batch.slab);
      this.#fill();
    });
  }

  /** Fills another batcher's batch up with records of the same task that wait here. */
  #moveTo(batch: Batch): void {
    for (let i = 0; i < this.#pending.length && batch.records.length < this.#capacity; ) {
      const { task, item } = this.#pending[i]!;
      const fits = task.key === batch.task.key && batch.texts + item.texts.length <= MAX_BATCH_TEXTS;
      if (fits) this.#put(this.#pending.splice(i, 1)[0]!, batch);
      else i += 1;
    }
  }

  async #settle(batch: Batch): Promise<void> {
    const { records } = batch;
    const outcomes = await this.#runBisecting(batch, 0, records);
    const failed = outcomes.filter((outcome) => outcome instanceof CapfleetError).length;
    // One bad record is the record's fault; a batch in which nothing works is the engine's.
    const engineFault = failed === records.length && records.length > 1;
    for (const [i, outcome] of outcomes.entries()) {
      const record = records[i]!;
      if (!(outcome instanceof CapfleetError)) record.resolve(outcome);
      else if (engineFault || isTaskFault(outcome)) record.reject(outcome);
      else record.reject(new CapfleetError("INFERENCE_FAILED", outcome.message, { cause: outcome }));
    }
  }

  async #runBisecting(batch: Batch, first: number, records: Waiting[]): Promise<(Output | CapfleetError)[]> {
    const { task, slab } = batch;
    try {
      const items = records.map(({ item }) => item);
      const urgent = this.#bulk !== null;
      return await this.#host.label({ engine: this.#engine, task: task.spec, items, slab, first, urgent });
    } catch (thrown) {
      const error = thrown as CapfleetError;
      if (records.length === 1 || isTaskFault(error)) return records.map(() => error);
      const half = records.length >> 1;
      const left = await this.#runBisecting(batch, first, records.slice(0, half));
      const right = await this.#runBisecting(batch, first + half, records.slice(half));
      return [...left, ...right];
    }
  }
}

/** The model can't do what the task asks of it, whatever the record. */
const isTaskFault = ({ scope }: CapfleetError) => scope === "usage";

const EMPTY = new Uint8Array(0);

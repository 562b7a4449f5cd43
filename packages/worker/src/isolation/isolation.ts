/**
 * Where the records of a shard are labelled that has taken workers down: one by one, in a process of their own, which may
 * die. What it dies on is the record that it had; that gets a row with WORKER_CRASHED, and a new process goes on after it.
 *
 * It is the same code as in the worker, with batches of one: since a row does not depend on its batch, rows are the same to
 * the last bit. The process holds every engine a second time, for as long as a shard of this worker needs it; there is one
 * at the most.
 *
 * A machine that has no memory for the model kills whatever runs it. So that this is not held against the records, a new
 * process has to label a blank picture first: where it dies on that, the shard waits (WORKER_LOST), and no row is written.
 */
import { CapfleetError, type InputRecord, type JobFile, needsImage, type ResultRow } from "@capfleet/shared/contract";
import type { Logger } from "@capfleet/shared/log";
import pLimit from "p-limit";
import type { Keep, Labeler } from "../pipeline/labeler.ts";
import type { ShardContext } from "../pipeline/shard.ts";
import { type Death, IsolatedProcess } from "./process.ts";
import type { IsolatedData, IsolatedRequest } from "./protocol.ts";

/** Loading a large model from a slow disk; a record is bounded by `recordSeconds`. */
const START_MS = 15 * 60 * 1_000;

export interface IsolationOptions extends IsolatedData {
  /** What one record may take. */
  recordSeconds: number;
  log: Logger;
}

/** A place for a shard; the process ends when the last one is given back. */
export type IsolatedPlace = Pick<ShardContext, "admit" | "label"> & Disposable;

export class Isolation {
  readonly #labeler: Pick<Labeler, "fetch">;
  readonly #options: IsolationOptions;
  readonly #one = pLimit(1);
  #process: IsolatedProcess | null = null;
  /** Jobs of which the process has labelled a blank picture. */
  #proven = new Set<string>();
  #places = 0;

  constructor(labeler: Pick<Labeler, "fetch">, options: IsolationOptions) {
    this.#labeler = labeler;
    // It crosses as an argument of the process, which everybody on the machine can read: no more than this of the settings.
    const { maxImageBytes, maxImagePixels, maxDecodeSeconds } = options.limits;
    this.#options = { ...options, limits: { maxImageBytes, maxImagePixels, maxDecodeSeconds } };
  }

  enter(): IsolatedPlace {
    this.#places += 1;
    const label: ShardContext["label"] = (...record) => this.#label(...record);
    return {
      admit: (work) => this.#one(work),
      label,
      [Symbol.dispose]: () => {
        this.#places -= 1;
        if (this.#places === 0) this.#end();
      },
    };
  }

  /** The task's fields of a row. Throws WORKER_CRASHED and other row errors, and shard errors. */
  async #label(record: InputRecord, job: JobFile, signal: AbortSignal, keep?: Keep): Promise<Partial<ResultRow>> {
    if (!needsImage(job.spec.task)) return this.#ask(record, job, signal, null);
    let fields: Partial<ResultRow> = {};
    await this.#labeler.fetch(record, signal, async (image) => {
      fields = await this.#ask(record, job, signal, image);
      await keep?.(image);
    });
    return fields;
  }

  async #ask(record: InputRecord, job: JobFile, signal: AbortSignal, image: Uint8Array | null) {
    const { recordSeconds, log } = this.#options;
    const { id, texts } = record;
    const { engines, task } = job.spec;
    const spec = { engines, task };
    const isolated = await this.#prove(job.id, {
      record: { id: "blank", texts: texts && ["a"] },
      spec,
      image: image && BLANK,
    });
    const answer = await isolated.ask({ record: { id, texts }, spec, image }, recordSeconds * 1_000);
    if (!("how" in answer)) return answer.fields;
    // Ended by us, with the shard: the record has done nothing.
    signal.throwIfAborted();
    log.warn({ job: job.id, record: id, stage: answer.stage, how: answer.how }, "a record has ended its process");
    throw new CapfleetError("WORKER_CRASHED", `the process that ${WAS[answer.stage]} ${answer.how}`);
  }

  /** The process, which is known to survive a blank picture. Throws WORKER_LOST, and what starting it throws. */
  async #prove(job: string, blank: IsolatedRequest): Promise<IsolatedProcess> {
    const { engine, limits, log } = this.#options;
    if (!this.#process || this.#process.isDead) {
      this.#end();
      log.info({ job }, "a process of its own for records that may crash");
      this.#process = await IsolatedProcess.start({ engine, limits }, START_MS);
      // The shard may have been given back meanwhile.
      if (this.#places === 0) this.#end();
    }
    const isolated = this.#process;
    if (!isolated) throw new CapfleetError("WORKER_LOST", "no shard needs this process any more");
    if (this.#proven.has(job)) return isolated;
    // What it answers does not matter, nor what it refuses: it lives.
    const answer = await isolated.ask(blank, START_MS).catch(() => null);
    if (answer && "how" in answer) {
      const message = `the process that ${WAS[answer.stage]} ${answer.how}, also with a blank picture: it is no record's fault`;
      throw new CapfleetError("WORKER_LOST", message);
    }
    this.#proven.add(job);
    return isolated;
  }

  #end(): void {
    this.#process?.kill();
    this.#process = null;
    this.#proven.clear();
  }
}

const WAS: Record<Death["stage"], string> = {
  starting: "was to label it",
  decoding: "decoded the image",
  inferring: "ran the model on it",
};

/** A PNG of one grey pixel. */
const BLANK = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==",
  "base64",
);

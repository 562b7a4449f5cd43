/**
 * From a record to its row's fields: fetch → decode → batch → infer, for all shards and jobs at once. Each stage has its
 * own bound; `admit` bounds the whole, so that decode runs ahead of inference by a few batches and no more. A task that
 * looks at no image begins with the batch.
 */
import { createHash } from "node:crypto";
import { availableParallelism } from "node:os";
import {
  CapfleetError,
  type InputRecord,
  type JobFile,
  needsImage,
  type ResultRow,
  type TaskSpec,
  textsOf,
} from "@capfleet/shared/contract";
import type { Stores } from "@capfleet/shared/storage";
import pLimit, { type LimitFunction } from "p-limit";
import type { EngineInfo } from "../engine/engine.ts";
import type { EngineHost } from "../engine/host.ts";
import { decode } from "../pixels/index.ts";
import { Batcher, type KeyedTask } from "./batcher.ts";
import { Budget } from "./budget.ts";
import { fetchImage } from "./fetch.ts";
import { fieldsOf } from "./fields.ts";

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
  readonly #batchers = new Map<string, { batcher: Batcher; image: EngineInfo["image"] }>();
  /** By the task of a job file, which every record of a shard shares: a task may hold thousands of answers. */
  readonly #keyed = new WeakMap<TaskSpec, KeyedTask>();
  readonly #stores: Stores;
  readonly #limits: Limits;

  constructor(host: Pick<EngineHost, "label" | "infos">, stores: Stores, limits: Limits) {
    this.#stores = stores;
    this.#limits = limits;
    let largest = 0;
    for (const [i, { ref, image, batch }] of host.infos.entries()) {
      this.#batchers.set(ref.digest, { batcher: new Batcher(host, i, BATCH_WAIT_MS), image });
      largest = Math.max(largest, batch);
    }
    this.admit = pLimit(largest * BATCHES_AHEAD);
  }

  /** The task's fields of a row. Throws row errors and shard errors. */
  async label(record: InputRecord, job: JobFile, signal: AbortSignal): Promise<Partial<ResultRow>> {
    const { engine, task } = job.spec;
    const found = this.#batchers.get(engine.digest);
    if (!found) throw new CapfleetError("ENGINE_FAILED", `this worker does not run ${engine.model} (${engine.digest})`);
    const texts = record.texts ?? givenTexts(task);
    const pixels = needsImage(task) ? await this.#pixels(record.image!, found.image, signal) : NO_PIXELS;
    const output = await found.batcher.label(this.#keyOf(task), { id: record.id, texts }, pixels);
    return fieldsOf(task, texts, output);
  }

  async #pixels(uri: string, size: EngineInfo["image"], signal: AbortSignal): Promise<Uint8Array> {
    const { maxImageBytes, maxImagePixels: maxPixels } = this.#limits;
    const { bytes, release } = await fetchImage(uri, this.#stores, maxImageBytes, this.#budget, signal);
    return this.#decoding(() => decode(bytes, size, { maxPixels })).finally(release);
  }

  #keyOf(spec: TaskSpec): KeyedTask {
    const known = this.#keyed.get(spec);
    if (known) return known;
    const keyed = { key: createHash("sha256").update(JSON.stringify(spec)).digest("base64"), spec };
    this.#keyed.set(spec, keyed);
    return keyed;
  }
}

/** What the job asks of every record; the same array each time, so that it crosses to the engine once per batch. */
function givenTexts(task: TaskSpec): readonly string[] {
  const source = textsOf(task);
  return source && "given" in source ? source.given : [];
}

const NO_PIXELS = new Uint8Array(0);

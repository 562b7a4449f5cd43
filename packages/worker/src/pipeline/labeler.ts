/**
 * From a record to its row's fields: fetch → decode → batch → infer, for all shards and jobs at once. Each stage has its
 * own bound; `admit` bounds the whole, so that decode runs ahead of inference by a few batches and no more. A task that
 * looks at no image begins with the batch. Records that somebody waits for go the same way in a lane of their own, where no
 * bulk record is before them.
 */
import { createHash } from "node:crypto";
import { availableParallelism } from "node:os";
import {
  CapfleetError,
  type InputRecord,
  type JobSpec,
  type JobTaskSpec,
  needsImage,
  type ResultRow,
  rolesOf,
  type TaskSpec,
  textsOf,
} from "@capfleet/shared/contract";
import { Budget, type Fetched, fetchImage, type ImageSource, uploadedImage } from "@capfleet/shared/datasets";
import { faultPoint } from "@capfleet/shared/faults";
import type { Stores } from "@capfleet/shared/storage";
import pLimit, { type LimitFunction } from "p-limit";
import type { EngineInfo } from "../engine/engine.ts";
import type { EngineHost } from "../engine/host.ts";
import { decodeAll } from "../pixels/index.ts";
import { Batcher, type KeyedTask } from "./batcher.ts";
import { capfilt } from "./capfilt.ts";
import { fieldsOf } from "./fields.ts";

/** Encoded images in memory. */
const FETCHED_BYTES = 256 * 1024 * 1024;
/** The same of records that somebody waits for. */
const URGENT_BYTES = 64 * 1024 * 1024;
/** How long a partial batch waits for company while the engine is idle. */
const BATCH_WAIT_MS = 10;
/** Batches of each engine that fetch and decode may be ahead of inference. */
const BATCHES_AHEAD = 4;

/** Takes an image's bytes, which may be used again once it is done with them. */
export type Keep = (bytes: Buffer) => Promise<void>;

export interface Limits {
  maxImageBytes: number;
  maxImagePixels: number;
  maxDecodeSeconds: number;
}

/** What of a job it takes to label a record. */
type Work = { spec: Pick<JobSpec, "engines" | "task"> };

/** What one kind of work has to itself, so that it does not wait for the other's. */
class Lane {
  readonly decoding: LimitFunction = pLimit(availableParallelism());
  readonly budget: Budget;
  readonly batchers = new Map<string, { batcher: Batcher; image: EngineInfo["image"] }>();

  constructor(fetchedBytes: number) {
    this.budget = new Budget(fetchedBytes);
  }
}

export class Labeler {
  readonly admit: LimitFunction;
  readonly #bulk = new Lane(FETCHED_BYTES);
  readonly #urgent = new Lane(URGENT_BYTES);
  /** By the task of a job file, which every record of a shard shares: a task may hold thousands of answers. */
  readonly #keyed = new WeakMap<JobTaskSpec, KeyedTask[]>();
  readonly #stores: Stores;
  readonly #limits: Limits;

  constructor(host: Pick<EngineHost, "label" | "infos">, stores: Stores, limits: Limits) {
    this.#stores = stores;
    this.#limits = limits;
    let largest = 0;
    for (const [i, { ref, image, batch }] of host.infos.entries()) {
      const batcher = new Batcher(host, i, BATCH_WAIT_MS);
      this.#bulk.batchers.set(ref.digest, { batcher, image });
      this.#urgent.batchers.set(ref.digest, { batcher: new Batcher(host, i, 0, batcher), image });
      largest = Math.max(largest, batch);
    }
    // A record that goes through two engines is with the first, with the second, or still being decoded.
    this.admit = pLimit(largest * BATCHES_AHEAD * host.infos.length);
  }

  /** The task's fields of a row. `keep` gets the image's bytes. Throws row errors and shard errors. */
  label(record: InputRecord, job: Work, signal: AbortSignal, keep?: Keep): Promise<Partial<ResultRow>> {
    return this.#label(record, job, this.#bulk, () => this.#fetch(record, this.#bulk, signal), keep);
  }

  /**
   * The same for a record that somebody waits for, ahead of bulk work; not to be called for more than a few batches at
   * once. `upload`: the image's file, where it came along with the record.
   */
  labelNow(record: InputRecord, work: Work, upload: Buffer | null, signal: AbortSignal): Promise<Partial<ResultRow>> {
    const fetch = async () =>
      upload ? uploadedImage(upload, this.#limits.maxImageBytes) : this.#fetch(record, this.#urgent, signal);
    return this.#label(record, work, this.#urgent, fetch);
  }

  async #label(
    record: InputRecord,
    job: Work,
    lane: Lane,
    fetch: () => Promise<Fetched>,
    keep?: Keep,
  ): Promise<Partial<ResultRow>> {
    const { engines, task } = job.spec;
    const found = engines.map(({ digest, model }) => {
      const batcher = lane.batchers.get(digest);
      if (!batcher) throw new CapfleetError("ENGINE_FAILED", `this worker does not run ${model} (${digest})`);
      return batcher;
    });
    const texts = record.texts ?? givenTexts(task);
    const sizes = found.map(({ image }) => image);
    const pixels = needsImage(task) ? await this.#pixels(record.id, await fetch(), sizes, lane, keep) : [NO_PIXELS];
    const roles = this.#rolesOf(task);
    const ask = async (role: number, texts: readonly string[]) => {
      const output = await found[role]!.batcher.label(roles[role]!, { id: record.id, texts }, pixels[role]!);
      faultPoint("worker.inferred", record.id);
      return output;
    };
    if (task.name === "capfilt")
      return capfilt(
        task,
        texts,
        () => ask(0, []),
        (all) => ask(1, all),
      );
    if (task.name === "filter") return capfilt(task, texts, null, (all) => ask(0, all));
    return fieldsOf(task, texts, await ask(0, texts));
  }

  /** Gives `keep` a record's image and does nothing else with it. Throws row errors and shard errors. */
  async fetch(record: ImageSource, signal: AbortSignal, keep: Keep): Promise<void> {
    const { bytes, release } = await this.#fetch(record, this.#bulk, signal);
    await keep(bytes).finally(release);
  }

  #fetch(record: ImageSource, { budget }: Lane, signal: AbortSignal): Promise<Fetched> {
    return fetchImage(record, this.#stores, this.#limits.maxImageBytes, budget, signal);
  }

  /** The image in each of the sizes; those that are equal share their pixels. */
  async #pixels(
    id: string,
    { bytes, release }: Fetched,
    sizes: readonly EngineInfo["image"][],
    lane: Lane,
    keep?: Keep,
  ): Promise<Uint8Array[]> {
    const { maxImagePixels: maxPixels, maxDecodeSeconds: maxSeconds } = this.#limits;
    faultPoint("worker.image.fetched", id);
    const kept = keep?.(bytes);
    const different = new Map(sizes.map((size) => [`${size.width} ${size.height}`, size]));
    const decoding = lane.decoding(() => {
      faultPoint("worker.decode", id);
      return decodeAll(bytes, [...different.values()], { maxPixels, maxSeconds });
    });
    const [decoded] = await Promise.all([decoding, kept]).finally(release);
    faultPoint("worker.image.decoded", id);
    const keys = [...different.keys()];
    return sizes.map(({ width, height }) => decoded[keys.indexOf(`${width} ${height}`)]!);
  }

  #rolesOf(task: JobTaskSpec): KeyedTask[] {
    const known = this.#keyed.get(task);
    if (known) return known;
    const keyed = rolesOf(task).map(keyOf);
    this.#keyed.set(task, keyed);
    return keyed;
  }
}

/** What a manifest calls its texts makes no other task of it. */
const keyOf = (spec: TaskSpec): KeyedTask => {
  const meaning = JSON.stringify(spec, (name, value) => (name === "column" ? "" : value));
  return { key: createHash("sha256").update(meaning).digest("base64"), spec };
};

/** What the job asks of every record; the same array each time, so that it crosses to the engine once per batch. */
function givenTexts(task: JobTaskSpec): readonly string[] {
  const source = textsOf(task);
  return source && "given" in source ? source.given : [];
}

const NO_PIXELS = new Uint8Array(0);

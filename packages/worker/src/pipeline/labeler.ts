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
  type JobTaskSpec,
  needsImage,
  type ResultRow,
  rolesOf,
  type TaskSpec,
  textsOf,
} from "@capfleet/shared/contract";
import { Budget, fetchImage, type ImageSource } from "@capfleet/shared/datasets";
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
/** How long a partial batch waits for company while the engine is idle. */
const BATCH_WAIT_MS = 10;
/** Batches that fetch and decode may be ahead of inference. */
const BATCHES_AHEAD = 4;

/** Takes an image's bytes, which may be used again once it is done with them. */
export type Keep = (bytes: Buffer) => Promise<void>;

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
  readonly #keyed = new WeakMap<JobTaskSpec, KeyedTask[]>();
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

  /** The task's fields of a row. `keep` gets the image's bytes. Throws row errors and shard errors. */
  async label(record: InputRecord, job: JobFile, signal: AbortSignal, keep?: Keep): Promise<Partial<ResultRow>> {
    const { engines, task } = job.spec;
    const found = engines.map(({ digest, model }) => {
      const batcher = this.#batchers.get(digest);
      if (!batcher) throw new CapfleetError("ENGINE_FAILED", `this worker does not run ${model} (${digest})`);
      return batcher;
    });
    const texts = record.texts ?? givenTexts(task);
    const sizes = found.map(({ image }) => image);
    const pixels = needsImage(task) ? await this.#pixels(record, sizes, signal, keep) : [NO_PIXELS];
    const roles = this.#rolesOf(task);
    const ask = (role: number, texts: readonly string[]) =>
      found[role]!.batcher.label(roles[role]!, { id: record.id, texts }, pixels[role]!);
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
    const { bytes, release } = await this.#fetch(record, signal);
    await keep(bytes).finally(release);
  }

  /** The image in each of the sizes; those that are equal share their pixels. */
  async #pixels(
    record: ImageSource,
    sizes: readonly EngineInfo["image"][],
    signal: AbortSignal,
    keep?: Keep,
  ): Promise<Uint8Array[]> {
    const { maxImagePixels: maxPixels } = this.#limits;
    const { bytes, release } = await this.#fetch(record, signal);
    const kept = keep?.(bytes);
    const different = new Map(sizes.map((size) => [`${size.width} ${size.height}`, size]));
    const decoding = this.#decoding(() => decodeAll(bytes, [...different.values()], { maxPixels }));
    const [decoded] = await Promise.all([decoding, kept]).finally(release);
    const keys = [...different.keys()];
    return sizes.map(({ width, height }) => decoded[keys.indexOf(`${width} ${height}`)]!);
  }

  #fetch(record: ImageSource, signal: AbortSignal) {
    return fetchImage(record, this.#stores, this.#limits.maxImageBytes, this.#budget, signal);
  }

  #rolesOf(task: JobTaskSpec): KeyedTask[] {
    const known = this.#keyed.get(task);
    if (known) return known;
    const keyed = rolesOf(task).map(keyOf);
    this.#keyed.set(task, keyed);
    return keyed;
  }
}

const keyOf = (spec: TaskSpec): KeyedTask => ({
  key: createHash("sha256").update(JSON.stringify(spec)).digest("base64"),
  spec,
});

/** What the job asks of every record; the same array each time, so that it crosses to the engine once per batch. */
function givenTexts(task: JobTaskSpec): readonly string[] {
  const source = textsOf(task);
  return source && "given" in source ? source.given : [];
}

const NO_PIXELS = new Uint8Array(0);

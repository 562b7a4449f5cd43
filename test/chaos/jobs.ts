/** The work that is done under faults: jobs over a few small images, of which every row is known. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { layout, type ResultRow } from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";
import { JobStates } from "../../packages/producer/src/jobs/states.ts";
import { DEMO, until } from "../support/processes.ts";
import { submitHere } from "../support/submit.ts";
import type { World } from "./world.ts";

const GOOD = ["000.webp", "003.jpg", "008.jpg", "009.jpg", "011.webp", "012.jpg", "018.webp", "020.jpg"].map(
  (name) => `scene-${name}`,
);
/** One that can't be decoded, and one that is not there: their rows are errors, and nobody else's may be. */
const [BROKEN, GONE] = ["broken.webp", "gone.jpg"] as const;
export const SHARD_SIZE = 20;
const JOB_RECORDS = 1_000;
const LEAST_JOBS = 3;
const FORMATS = ["jsonl", "webdataset", "parquet"] as const;
const CALM_SECONDS = 120;

/**
 * A row but for the record's id and the file that holds it. Of an error only the code: what libvips says of a broken file is not
 * always the same.
 */
export type Answer = Omit<ResultRow, "id" | "data" | "error"> & { error?: string };

export const answerOf = ({ id: _, data: __, error, ...answer }: ResultRow): Answer =>
  error ? { ...answer, error: error.code } : answer;

export class Corpus {
  /** By the image's name. */
  readonly images = new Map<string, Buffer>();
  /** In the order of the records, again and again. */
  readonly names: string[] = [];
  readonly manifest: string;
  /** By the image's URI; of a run without faults. */
  answers = new Map<string, Answer>();

  private constructor(manifest: string) {
    this.manifest = manifest;
  }

  static async write(world: World, records: number): Promise<Corpus> {
    const corpus = new Corpus(`${world.root}in/list.jsonl`);
    for (const name of GOOD) corpus.images.set(name, await readFile(join(DEMO, "images", name)));
    corpus.images.set(BROKEN, corpus.images.get(GOOD[0]!)!.subarray(0, 2_000));
    corpus.names.push(...GOOD, BROKEN, GONE);
    const store = world.stores.at(`${world.root}in/`);
    for (const [name, bytes] of corpus.images) await store.put(name, bytes);
    const line = (n: number) => JSON.stringify({ id: String(n), image: corpus.names[n % corpus.names.length] });
    await store.put("list.jsonl", Array.from({ length: Math.min(records, JOB_RECORDS) }, (_, n) => line(n)).join("\n"));
    return corpus;
  }

  /** What each image's row must say: from a job that nothing disturbs. */
  async learn(world: World): Promise<void> {
    const job = await ChaosJob.submit(world, this, "calm", this.names.length, "jsonl");
    const isEnded = async () => {
      await job.look();
      return job.ended;
    };
    await until("the job without faults", isEnded, CALM_SECONDS);
    for (const row of await job.rowsOf(0)) this.answers.set(row.image!, answerOf(row));
    const codes = [...this.answers.values()].flatMap(({ error }) => error ?? []).sort();
    if (
      job.ended !== "finished" ||
      this.answers.size !== this.names.length ||
      codes.join() !== "IMAGE_NOT_FOUND,IMAGE_UNREADABLE"
    )
      throw new Error(
        `without faults the job is ${job.ended}, of ${this.answers.size} answers ${codes.join()} are errors`,
      );
  }
}

/** How many records each job has, so that together they have so many. */
export function divide(records: number): number[] {
  const jobs = Math.max(Math.ceil(records / JOB_RECORDS), Math.min(LEAST_JOBS, records));
  return Array.from(
    { length: jobs },
    (_, i) => Math.floor(((i + 1) * records) / jobs) - Math.floor((i * records) / jobs),
  );
}

export const formatOf = (job: number) => FORMATS[job % FORMATS.length]!;

/** A job as object storage shows it, past all trouble. */
export class ChaosJob {
  readonly id: string;
  readonly store: Store;
  readonly records: number;
  readonly format: (typeof FORMATS)[number];
  readonly committed = new Set<number>();
  ended: string | null = null;
  reason = "";
  #lowWater = 0;
  readonly #states: JobStates;

  private constructor(id: string, store: Store, records: number, format: (typeof FORMATS)[number], states: JobStates) {
    this.id = id;
    this.store = store;
    this.records = records;
    this.format = format;
    this.#states = states;
  }

  static async submit(
    world: World,
    { manifest }: Corpus,
    name: string,
    records: number,
    format: (typeof FORMATS)[number],
  ) {
    const line = [
      "caption",
      manifest,
      "--out",
      `${world.root}${name}/`,
      "--limit",
      String(records),
      "--format",
      format,
    ];
    const { id, store } = await submitHere(world.env, world.stores, [...line, "--shard-size", String(SHARD_SIZE)]);
    return new ChaosJob(id, store, records, format, new JobStates(world.stores.at(world.env.CAPFLEET_STATE!)));
  }

  async look(): Promise<void> {
    const after = this.#lowWater > 0 ? { after: layout.result(this.#lowWater - 1) } : {};
    for await (const { key } of this.store.list({ prefix: layout.results, ...after }))
      this.committed.add(layout.numberOf(key)!);
    while (this.committed.has(this.#lowWater)) this.#lowWater += 1;
    const state = await this.#states.find(this.id);
    this.ended = state?.ended ?? null;
    this.reason = state?.reason ? `${state.reason.code}: ${state.reason.message}` : "";
  }

  /** What is committed of a shard; nothing where nothing is. */
  async rowsOf(shard: number): Promise<ResultRow[]> {
    const found = await this.store.read(layout.result(shard)).catch(() => null);
    const lines = found?.bytes.toString("utf8").trimEnd().split("\n") ?? [];
    return lines.map((line) => JSON.parse(line) as ResultRow);
  }

  get rows(): number {
    return Math.min(this.committed.size * SHARD_SIZE, this.records);
  }

  /** Shards that are not committed although a later one is: at work when that was. */
  get gaps(): number[] {
    const last = Math.max(-1, ...this.committed);
    return Array.from({ length: last + 1 }, (_, shard) => shard).filter((shard) => !this.committed.has(shard));
  }
}

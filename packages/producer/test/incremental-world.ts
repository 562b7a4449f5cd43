/**
 * A dataset and the commands that make its runs, in this process: all that an incremental run writes, in the order in which
 * it is written. The model is a fake: an image's caption is what is in the file, so that a row tells which version of
 * the image it is of.
 */
import { decodingSchema, layout, type ResultRow, rowErrorSchema } from "@capfleet/shared/contract";
import { readIndex } from "@capfleet/shared/datasets";
import type { Model } from "@capfleet/shared/models";
import { type Store, Stores } from "@capfleet/shared/storage";
import type { Backend } from "../../shared/test/storage/backends.ts";
import { publishRun } from "../src/incremental/publish.ts";
import { readRoot } from "../src/incremental/root.ts";
import { createRun } from "../src/incremental/start.ts";
import { viewRows } from "../src/incremental/view.ts";
import type { CreatedJob, JobRequest } from "../src/jobs/create.ts";
import { JobStates } from "../src/jobs/states.ts";
import { openDataset } from "../src/plan/input.ts";
import { planJob } from "../src/plan/planner.ts";
import { endJob } from "../src/reconcile/finisher.ts";
import { JobTracker } from "../src/reconcile/tracker.ts";

export interface Command {
  prompt?: string;
  digest?: string;
  limit?: number;
  shardSize?: number;
  input?: string;
  output?: string;
  name?: string;
}

export class World {
  readonly stores: Stores;
  readonly uri: string;
  readonly source: Store;
  readonly root: Store;

  private constructor(stores: Stores, uri: string) {
    this.stores = stores;
    this.uri = uri;
    this.source = stores.at(`${uri}in/`);
    this.root = stores.at(`${uri}out/`);
  }

  /** With these images: what is in each is its caption. */
  static async create(backend: Backend, images: Record<string, string>): Promise<World> {
    const { store, config } = await backend.open();
    const world = new World(config === "" ? new Stores() : new Stores(JSON.parse(config)), store.uri);
    for (const [key, text] of Object.entries(images)) await world.source.put(key, text);
    return world;
  }

  states(stores = this.stores): JobStates {
    return new JobStates(stores.at(`${this.uri}state/`));
  }

  /** What a command does before its job runs. */
  start({ prompt, digest = "engine", limit, shardSize = 2, input, output, name }: Command = {}, stores = this.stores) {
    const request: JobRequest = {
      task: { name: "caption", decoding: decodingSchema.parse({}), captions: 1, prompt: prompt ?? null },
      input: input ?? `${this.uri}in/`,
      columns: {},
      output: output ?? `${this.uri}out/`,
      limit: limit ?? null,
      shardSize,
      format: "jsonl",
      lane: "normal",
      maxErrorRate: 1,
      runner: "fleet",
      readable: null,
      incremental: true,
    };
    const ref = { model: "fake", digest, checkpoint: "fake", precision: "int8" as const };
    const model: Model = { ref, folder: null, tasks: ["caption"], maxNewTokens: 100 };
    return createRun(request, [model], stores, this.states(stores), name);
  }

  /** Plans and labels; repeating it goes on. Returns the number of shards. */
  async label({ file, out }: CreatedJob, stores = this.stores): Promise<number> {
    const store = stores.at(out);
    const { signal } = new AbortController();
    const dataset = openDataset(file.spec, stores);
    const plan = await planJob({ store, spec: file.spec, dataset, slots: 0, signal, onShard: () => {} });
    for (let shard = 0; shard < plan.shards; shard++) {
      const lines = (await store.read(layout.shard(shard))).bytes.toString().trimEnd().split("\n").slice(0, -1);
      const rows = lines.map(async (line) => {
        const { id, image } = JSON.parse(line);
        const text = (await stores.at(file.spec.input.uri).read(id)).bytes.toString();
        const failed = text.startsWith("{") ? { error: rowErrorSchema.parse(JSON.parse(text)) } : { caption: text };
        return `${JSON.stringify({ id, image, ...failed } satisfies ResultRow)}\n`;
      });
      await store.putIfAbsent(layout.result(shard), (await Promise.all(rows)).join(""));
    }
    return plan.shards;
  }

  /** All that ends a job, as the reconciler does it. */
  async end(created: CreatedJob, shards: number, ended: "finished" | "failed" = "finished", stores = this.stores) {
    const { file, out } = created;
    const state = (await this.states(stores).find(file.id))!;
    if (ended === "finished") {
      const { retries } = state;
      await publishRun({ file, out, shards, retries }, stores, new AbortController().signal);
    }
    const tracker = (await JobTracker.open(state, stores))!;
    await endJob(tracker, ended, null, this.states(stores));
  }

  /** The whole command. Returns the keys that its run took; null where there was nothing new. */
  async run(command: Command = {}, stores = this.stores): Promise<string[] | null> {
    const created = await this.start(command, stores);
    if ("nothingNew" in created) return null;
    await this.end(created, await this.label(created, stores), "finished", stores);
    return this.taken(created.out);
  }

  /** The keys of a run's records. */
  async taken(out: string): Promise<string[]> {
    const store = this.stores.at(out);
    const keys: string[] = [];
    for await (const { key } of store.list({ prefix: layout.shards })) {
      const lines = (await store.read(key)).bytes.toString().trimEnd().split("\n").slice(0, -1);
      keys.push(...lines.map((line) => JSON.parse(line).id));
    }
    return keys;
  }

  /** What a reader of the dataset sees: keys and captions (or the codes of errors), in order. */
  async view(): Promise<[string, string][]> {
    const found = await readRoot(this.root);
    const { index, entries } = found!.root.current!;
    const rows = (await Array.fromAsync(viewRows(this.root, readIndex(this.root, index), this.stores))).flat();
    if (rows.length !== entries) throw new Error(`${rows.length} rows, and dataset.json says ${entries}`);
    return rows.map(({ record, line }) => {
      const { id, caption, error } = JSON.parse(line) as ResultRow;
      if (record.id !== id) throw new Error(`the row of ${id} has the record of ${record.id}`);
      return [id, caption ?? error!.code];
    });
  }

  async indexes(): Promise<string[]> {
    const objects = await Array.fromAsync(this.root.list({ prefix: "index/" }));
    return [...new Set(objects.map(({ key }) => key.split("/")[1]!))];
  }
}

const WRITES = ["put", "putIfAbsent", "putIfMatch", "putStream", "delete"];

/** What a process has done to its stores; `dies` is asked before and after each write, and ends it by being true. */
export function watched(stores: Stores, dies: (write: number, when: "before" | "after") => boolean = () => false) {
  const seen = { writes: 0, calls: [] as string[] };
  let isDead = false;
  const check = (write: number, when: "before" | "after") => {
    isDead ||= dies(write, when);
    if (isDead) throw new Error("killed");
  };
  const watch = (store: Store): Store =>
    new Proxy(store, {
      get: (target, property: keyof Store) => {
        const value = Reflect.get(target, property);
        if (typeof value !== "function") return value;
        return (...args: unknown[]) => {
          if (property === "uriOf") return (value as (...args: unknown[]) => unknown).apply(target, args);
          seen.calls.push(`${property} ${target.uri}${typeof args[0] === "string" ? args[0] : ""}`);
          if (isDead) throw new Error("killed");
          if (!WRITES.includes(property)) return (value as (...args: unknown[]) => unknown).apply(target, args);
          return (async () => {
            const write = ++seen.writes;
            check(write, "before");
            const done = await (value as (...args: unknown[]) => Promise<unknown>).apply(target, args);
            check(write, "after");
            return done;
          })();
        };
      },
    });
  const all = {
    at: (uri: string) => watch(stores.at(uri)),
    object: (uri: string) => {
      const { store, key } = stores.object(uri);
      return { store: watch(store), key };
    },
  };
  return { stores: all as unknown as Stores, seen };
}

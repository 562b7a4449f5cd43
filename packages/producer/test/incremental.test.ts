/** Incremental runs, from dataset.json to the view, on a folder and on S3; the model alone is a fake. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { CapfleetError, datasetLayout, type IndexEntry, layout } from "@capfleet/shared/contract";
import type { Store, Stores } from "@capfleet/shared/storage";
import { afterAll, describe, expect, test, vi } from "vitest";
import { backends } from "../../shared/test/storage/backends.ts";
import { mergeIndex, publishRun } from "../src/incremental/publish.ts";
import { listRuns, readRoot } from "../src/incremental/root.ts";
import type { NothingNew } from "../src/incremental/start.ts";
import type { CreatedJob } from "../src/jobs/create.ts";
import { JobTracker } from "../src/reconcile/tracker.ts";
import { World, watched } from "./incremental-world.ts";

const FOX = "\u{1f98a}.jpg";
const LAST_OF_UTF16 = "\uffff.jpg";
const IMAGES = { "a.jpg": "a", "b/c.jpg": "c", "b.jpg": "b", [LAST_OF_UTF16]: "last", [FOX]: "fox", "x.txt": "none" };
const KEYS = ["a.jpg", "b.jpg", "b/c.jpg", LAST_OF_UTF16, FOX];
const CAPTIONS = ["a", "b", "c", "last", "fox"];
const VIEW = KEYS.map((key, i) => [key, CAPTIONS[i]]);

const started = (created: CreatedJob | NothingNew): CreatedJob => {
  if ("nothingNew" in created) throw new Error("nothing new");
  return created;
};

describe.each(backends())("on $name", (backend) => {
  afterAll(() => backend.close());
  const it = test.skipIf(backend.isMissing);

  it("takes what is new or has changed, drops what is gone, and does all again for another prompt or engine", async () => {
    const world = await World.create(backend, IMAGES);
    expect(await world.run()).toEqual(KEYS);
    expect(await world.view()).toEqual(VIEW);
    expect(await world.run()).toBeNull();

    await world.source.put("new.jpg", "n");
    expect(await world.run()).toEqual(["new.jpg"]);
    await world.source.put("b.jpg", "another b");
    await world.source.delete(FOX);
    expect(await world.run()).toEqual(["b.jpg"]);
    const now = [
      ["a.jpg", "a"],
      ["b.jpg", "another b"],
      ["b/c.jpg", "c"],
      ["new.jpg", "n"],
      [LAST_OF_UTF16, "last"],
    ];
    expect(await world.view()).toEqual(now);
    await world.source.delete("new.jpg");
    expect(await world.run()).toEqual([]);
    expect(await world.view()).toEqual(now.filter(([key]) => key !== "new.jpg"));
    expect(await world.run()).toBeNull();

    const all = ["a.jpg", "b.jpg", "b/c.jpg", LAST_OF_UTF16];
    expect(await world.run({ prompt: "a picture of" })).toEqual(all);
    expect(await world.run({ prompt: "a picture of", digest: "another engine" })).toEqual(all);
    expect((await readRoot(world.root))!.root.pending).toBeNull();
    // The one before is kept for those who are reading it.
    expect(await world.run({ prompt: "a picture of", digest: "another engine" })).toBeNull();
    await world.source.put("z.jpg", "z");
    expect(await world.run({ prompt: "a picture of", digest: "another engine" })).toEqual(["z.jpg"]);
    expect(await world.indexes()).toHaveLength(2);
    expect(await listRuns(world.root)).toHaveLength(7);
  });

  it("an unchanged bucket costs its listing, a read of the index, and no write", async () => {
    const world = await World.create(backend, IMAGES);
    await world.run();
    const { stores, seen } = watched(world.stores);
    expect(await world.run({}, stores)).toBeNull();
    expect(seen.writes).toBe(0);
    const [index] = await world.indexes();
    const allowed = [
      /^list .*\/in\/$/,
      /^(stat|read) .*\/out\/dataset\.json$/,
      new RegExp(`^read .*/out/index/${index}/000000.jsonl$`),
      /^list .*\/out\/$/,
    ];
    for (const call of seen.calls) expect(allowed.some((pattern) => pattern.test(call)) ? "" : call).toBe("");
  });

  it("a row that may succeed later is done again by the next run, one that never will is not", async () => {
    const error = (retryable: boolean) => JSON.stringify({ code: `${retryable}`, message: "", retryable });
    const images = { ...IMAGES, "b.jpg": error(true), "a.jpg": error(false) };
    const world = await World.create(backend, images);
    await world.run();
    expect(await world.view()).toEqual([["a.jpg", "false"], ...VIEW.slice(2)]);
    expect(await world.run()).toEqual(["b.jpg"]);
    await world.source.put("b.jpg", "b");
    expect(await world.run()).toEqual(["b.jpg"]);
    expect(await world.view()).toEqual([["a.jpg", "false"], ...VIEW.slice(1)]);
    // A picture in place of one that has its row: as long as the new one fails, the old row stays.
    await world.source.put("b.jpg", error(true));
    expect(await world.run()).toEqual(["b.jpg"]);
    expect(await world.view()).toEqual([["a.jpg", "false"], ...VIEW.slice(1)]);
    expect(await world.run()).toEqual(["b.jpg"]);
  });

  it("--limit leaves the rest to the next run", async () => {
    const world = await World.create(backend, IMAGES);
    expect(await world.run({ limit: 2 })).toEqual(KEYS.slice(0, 2));
    expect(await world.view()).toEqual(VIEW.slice(0, 2));
    await world.source.put("a.jpg", "another a");
    expect(await world.run({ limit: 2 })).toEqual(["a.jpg", "b/c.jpg"]);
    expect(await world.run()).toEqual(KEYS.slice(3));
    expect(await world.view()).toEqual([["a.jpg", "another a"], ...VIEW.slice(1)]);
  });

  it("an image that changes while the run is at it is taken again by the next one", async () => {
    const world = await World.create(backend, IMAGES);
    const job = started(await world.start());
    const shards = await world.label(job);
    await world.source.put("a.jpg", "another a");
    await world.source.put("late.jpg", "late");
    await world.source.delete("b.jpg");
    await world.end(job, shards);
    expect(await world.view()).toEqual(VIEW.filter(([key]) => key !== "b.jpg"));
    expect(await world.run()).toEqual(["a.jpg", "late.jpg"]);
  });

  it("while a run is at it the same command goes on with it, and another one is refused", async () => {
    const world = await World.create(backend, IMAGES);
    const job = started(await world.start());
    const same = started(await world.start());
    expect(same).toMatchObject({ existed: true, out: job.out, file: { id: job.file.id } });
    const busy = { code: "DATASET_BUSY", message: expect.stringContaining(job.file.id) };
    await expect(world.start({ prompt: "a picture of" })).rejects.toMatchObject(busy);
    await expect(world.start({ limit: 2 })).rejects.toMatchObject(busy);
    await world.end(job, await world.label(job));
    expect(await world.run()).toBeNull();
  });

  it("of two commands at once one makes the run", async () => {
    const world = await World.create(backend, IMAGES);
    await world.run();
    await world.source.put("new.jpg", "n");
    const both = await Promise.allSettled([
      world.start({ limit: 1, name: "2026-01-01" }),
      world.start({ limit: 2, name: "2026-01-02" }),
    ]);
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(both.find(({ status }) => status === "rejected")).toMatchObject({ reason: { code: "DATASET_BUSY" } });
    expect(await listRuns(world.root)).toHaveLength(2);

    const other = await World.create(backend, IMAGES);
    const twins = await Promise.all([other.start(), other.start()]);
    expect(new Set(twins.map((twin) => started(twin).file.id)).size).toBe(1);
    expect(await listRuns(other.root)).toHaveLength(1);
  });

  it("what a failed or cancelled run has done does not count, and the next run may start", async () => {
    const world = await World.create(backend, IMAGES);
    await world.run();
    await world.source.put("new.jpg", "n");
    const failed = started(await world.start());
    const shards = await world.label(failed);
    await world.end(failed, shards, "failed");
    expect(await readRoot(world.root)).toMatchObject({ root: { pending: null } });
    expect(await world.view()).toEqual(VIEW);

    const cancelled = started(await world.start());
    expect(await world.taken(cancelled.out)).toEqual([]);
    // As a job of a machine that nobody starts again: there is the wish, and no one who ends it.
    await world.states().want(cancelled.file.id, "cancelled");
    const third = started(await world.start({ prompt: "a picture of" }));
    expect(third.file.id).not.toBe(cancelled.file.id);
    await world.end(third, await world.label(third));

    // Retried and finished at last, neither turns back a dataset that has gone on.
    const view = await world.view();
    await world.end(cancelled, await world.label(cancelled));
    await world.end(failed, shards);
    expect(await world.view()).toEqual(view);
  });

  it("a failed run that finishes when it is retried counts, where the dataset is as it found it", async () => {
    const world = await World.create(backend, IMAGES);
    await world.run();
    await world.source.put("new.jpg", "n");
    const failed = started(await world.start());
    const shards = await world.label(failed);
    await world.end(failed, shards, "failed");
    await world.end(failed, shards);
    expect(await world.run()).toBeNull();
    expect(await world.view()).toContainEqual(["new.jpg", "n"]);
  });

  it("a retry of the last run brings its rows into the dataset; once another has begun, it does not", async () => {
    const world = await World.create(backend, { ...IMAGES, "b.jpg": '{"code":"x","message":"","retryable":true}' });
    const job = started(await world.start());
    const shards = await world.label(job);
    await world.end(job, shards);
    expect(await world.view()).toEqual(VIEW.filter(([key]) => key !== "b.jpg"));
    const row = { id: "b.jpg", image: world.source.uriOf("b.jpg"), caption: "b" };
    const store = world.stores.at(job.out);
    const first = (await store.read(layout.result(0))).bytes.toString().split("\n")[0];
    await store.put(layout.result(0), `${first}\n${JSON.stringify(row)}\n`);
    const retried = { file: job.file, out: job.out, shards, retries: 1 };
    const { signal } = new AbortController();

    const next = started(await world.start());
    await publishRun(retried, world.stores, signal);
    expect(await world.view()).toEqual(VIEW.filter(([key]) => key !== "b.jpg"));
    await world.states().want(next.file.id, "cancelled");
    await world.end(next, 0, "failed");
    await publishRun(retried, world.stores, signal);
    expect(await world.view()).toEqual(VIEW);
    expect(await world.run()).toBeNull();
  });

  it("two producers that both end a run make one index, and leave no other", async () => {
    const world = await World.create(backend, IMAGES);
    const job = started(await world.start());
    const shards = await world.label(job);
    const ended = { file: job.file, out: job.out, shards, retries: 0 };
    const { signal } = new AbortController();
    await Promise.all([1, 2, 3].map(() => publishRun(ended, world.stores, signal)));
    expect(await world.view()).toEqual(VIEW);
    expect(await world.indexes()).toHaveLength(1);
  });

  it("a producer that is told to stop leaves the dataset as it was", async () => {
    const world = await World.create(backend, IMAGES);
    const job = started(await world.start());
    const ended = { file: job.file, out: job.out, shards: await world.label(job), retries: 0 };
    const stop = new AbortController();
    stop.abort(new Error("told to stop"));
    await expect(publishRun(ended, world.stores, stop.signal)).rejects.toThrow("told to stop");
    expect((await readRoot(world.root))!.root.current).toBeNull();
  });

  it("each shard is read once, however many runs a view is of", async () => {
    const world = await World.create(backend, {});
    for (const last of ["0", "1", "2"]) {
      for (let n = 0; n < 6; n++) await world.source.put(`${n}${last}.jpg`, `${n}${last}`);
      await world.run();
    }
    const { stores, seen } = watched(world.stores);
    const reader = Object.assign(Object.create(world), { stores, root: stores.at(world.root.uri) }) as World;
    const captions = (await reader.view()).map(([, caption]) => caption);
    expect(captions).toEqual(Array.from({ length: 18 }, (_, n) => `${Math.floor(n / 3)}${n % 3}`));
    const results = seen.calls.filter((call) => /^read .*results/.test(call));
    expect(results).toHaveLength(9);
    expect(new Set(results).size).toBe(9);
  });

  it("a run has the name that it is given, or the time; a name that is taken gets a number", async () => {
    const world = await World.create(backend, IMAGES);
    await world.run({ name: "2026-01-01T02-00-00Z" });
    await world.source.put("new.jpg", "n");
    await world.run({ name: "2026-01-01T02-00-00Z" });
    await world.source.put("newer.jpg", "n");
    await world.run();
    const runs = await listRuns(world.root);
    expect(runs.slice(0, 2)).toEqual(["2026-01-01T02-00-00Z", "2026-01-01T02-00-00Z-2"]);
    expect(runs[2]).toMatch(/^20\d\d-\d\d-\d\dT\d\d-\d\d-\d\dZ$/);
  });

  it("refuses what can't be: another input, another's place, no images, a manifest, a root in its own input", async () => {
    const world = await World.create(backend, IMAGES);
    await world.stores.at(`${world.uri}other/`).put("a.jpg", "a");
    await world.stores.at(`${world.uri}list/`).put("list.jsonl", '{"image":"a.jpg"}\n');
    await world.stores.at(`${world.uri}taken/`).put("notes.txt", "mine");
    await world.stores.at(`${world.uri}strange/`).put("dataset.json", "{}");
    const refused = (code: string) => expect.objectContaining({ code });
    await expect(world.start({ output: `${world.uri}taken/` })).rejects.toEqual(refused("OUTPUT_IN_USE"));
    await expect(world.start({ output: `${world.uri}strange/` })).rejects.toEqual(refused("OUTPUT_IN_USE"));
    await expect(world.start({ output: `${world.uri}in/out/` })).rejects.toEqual(refused("OUTPUT_INSIDE_INPUT"));
    const manifest = `${world.uri}list/list.jsonl`;
    await expect(world.start({ input: manifest })).rejects.toEqual(refused("INVALID_OPTION"));
    await expect(world.start({ input: `${world.uri}nothing/` })).rejects.toEqual(refused("INPUT_NOT_FOUND"));
    expect(await Array.fromAsync(world.root.list())).toEqual([]);
    await world.run();
    await expect(world.start({ input: `${world.uri}other/` })).rejects.toEqual(refused("OUTPUT_IN_USE"));
    // A folder that is not mounted must not empty the dataset.
    for (const key of [...KEYS, "x.txt"]) await world.source.delete(key);
    await expect(world.start()).rejects.toEqual(refused("INPUT_NOT_FOUND"));
  });
});

test("the index merge, against the plain definition of it", async () => {
  const keys = Array.from({ length: 400 }, (_, n) => `${String.fromCodePoint(0xf000 + n * 37)}.jpg`);
  // By code point, which is the order of the keys' bytes; JavaScript's own is another.
  expect(keys.toSorted()).not.toEqual(keys);
  for (let round = 0; round < 20; round++) {
    const drawn = (n: number, salt: number) => Math.imul(n * 2_654_435_761 + round * 97 + salt, 40_503) >>> 24;
    const listing = keys.filter((_, n) => drawn(n, 1) > 60);
    const base = keys.flatMap((key, row): IndexEntry[] =>
      drawn(row, 2) > 100 ? [{ key, etag: "old", run: "r", shard: 1, row }] : [],
    );
    const rows = keys.flatMap((key, row) => (drawn(row, 3) > 150 ? [{ key, etag: "new", shard: 2, row }] : []));
    const expected = listing.flatMap((key) => {
      const mine = rows.find((row) => row.key === key);
      return mine ? [{ ...mine, run: "s" }] : base.filter((entry) => entry.key === key);
    });
    const merged = mergeIndex({
      listing: listed(listing),
      base: chunks(cut(base, 7)),
      rows: chunks(cut(rows, 11)),
      run: "s",
      signal: new AbortController().signal,
    });
    expect((await Array.fromAsync(merged)).flat()).toEqual(expected);
  }
});

async function* listed(keys: string[]) {
  for (const key of keys) yield { key };
}
async function* chunks<T>(all: T[][]): AsyncGenerator<T[]> {
  yield* all;
}
const cut = <T>(all: T[], size: number) =>
  Array.from({ length: Math.ceil(all.length / size) }, (_, n) => all.slice(n * size, (n + 1) * size));

test("publishing goes on in the background, one at a time, and can be stopped; failed, it is tried again", async () => {
  const backend = backends()[0]!;
  const world = await World.create(backend, IMAGES);
  const job = started(await world.start());
  const shards = await world.label(job);
  const gates: PromiseWithResolvers<void>[] = [];
  let fails = false;
  const stores = Object.assign(Object.create(world.stores) as Stores, {
    at: (uri: string) => {
      const store = world.stores.at(uri);
      if (uri !== world.source.uri) return store;
      return Object.assign(Object.create(store) as Store, {
        async *list() {
          const gate = Promise.withResolvers<void>();
          gates.push(gate);
          await gate.promise;
          if (fails) throw new CapfleetError("STORE_UNAVAILABLE", "away");
          yield* store.list();
        },
      });
    },
  });
  const tracker = (await JobTracker.open(job.state, stores))!;
  tracker.plan = { shards, records: KEYS.length, seconds: 0 };
  const current = async () => (await readRoot(world.root))!.root.current;
  // As the reconciler does, in every round; later than any pause between two tries.
  const keep = () => tracker.keepPublishing(performance.now() + 60_000);
  const begun = async (n: number) => {
    await vi.waitFor(() => {
      expect(keep()).toBe(false);
      expect(gates).toHaveLength(n);
    });
    return gates[n - 1]!;
  };
  const idle = () => vi.waitFor(() => expect(tracker.isWorking).toBe(false));

  const stopped = await begun(1);
  expect(keep()).toBe(false);
  tracker.stopWorking();
  stopped.resolve();
  await idle();
  expect(gates).toHaveLength(1);
  expect(await current()).toBeNull();

  fails = true;
  (await begun(2)).resolve();
  await idle();
  expect(await current()).toBeNull();
  expect(tracker.fatal).toBeNull();

  fails = false;
  (await begun(3)).resolve();
  await idle();
  expect(keep()).toBe(true);
  expect(await current()).toMatchObject({ entries: KEYS.length });
  await backend.close();
});

test("300,000 images against an index of as many, and the next index, in 64 MB of heap", async () => {
  const child = join(import.meta.dirname, "incremental-process.ts");
  const { stdout } = await promisify(execFile)(process.execPath, ["--max-old-space-size=64", child]);
  expect(JSON.parse(stdout)).toEqual({ changed: 300, entries: 300_000 });
}, 120_000);

test("names of runs come out of outputs", () => {
  expect(datasetLayout.runOf(`s3://b/root/${datasetLayout.run("2026-01-01T02-00-00Z")}`)).toBe("2026-01-01T02-00-00Z");
});

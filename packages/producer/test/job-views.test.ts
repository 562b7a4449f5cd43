/** Pages of jobs: what they show, and what they cost. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type JobFile, type JobState, rolesOf, SCHEMA_VERSION } from "@capfleet/shared/contract";
import { connectRedis } from "@capfleet/shared/queues";
import { FileStore, type Store, Stores } from "@capfleet/shared/storage";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Caller } from "../src/api/access.ts";
import { JobViews } from "../src/api/views.ts";
import { askedJob } from "../src/jobs/asked-job.ts";
import { JobStates, newState } from "../src/jobs/states.ts";

const JOBS = 10_000;
const EVERYBODY: Caller = { key: null, scope: "admin", readable: null, writable: null, visible: null };

let folder: string;
const idOf = (n: number) => `job_01K9ZJ5W3N0000000000${String(n).padStart(6, "0")}`;
const outOf = (n: number) => `file://${folder}/${n % 2 ? "odd" : "even"}/${idOf(n)}/`;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-views-"));
  await mkdir(join(folder, "jobs"));
  const { task } = askedJob("caption", "s3://in/", { out: "s3://out/" }, "fleet").request;
  const engines = rolesOf(task).map(() => ({ model: "m", digest: "d", checkpoint: "c", precision: "fp32" as const }));
  const input = {
    kind: "prefix" as const,
    uri: "s3://in/",
    columns: { image: "image", id: "id" },
    keep: [],
    since: null,
  };
  const spec = {
    task,
    engines,
    input,
    limit: null,
    shardSize: null,
    format: "jsonl",
    lane: "normal",
    readable: null,
  } as const;
  const created = "2026-01-01T00:00:00.000Z";
  for (let n = 0; n < JOBS; n++) {
    const file: JobFile = { schema: SCHEMA_VERSION, id: idOf(n), capfleet: "0", created, fingerprint: "", spec };
    const state: JobState = { ...newState(file, outOf(n), "fleet"), intent: n % 10 === 0 ? "paused" : "run" };
    await writeFile(join(folder, "jobs", `${idOf(n)}.json`), JSON.stringify(state));
    // Only jobs that a page shows are looked at in their outputs.
    if (n < JOBS - 400) continue;
    await mkdir(outOf(n).slice("file://".length), { recursive: true });
    await writeFile(`${outOf(n).slice("file://".length)}job.json`, JSON.stringify(file));
  }
});
afterAll(() => rm(folder, { recursive: true }));

/** Views of the state root, and how many of its objects have been read. */
function open() {
  let reads = 0;
  const counted: Store = new Proxy(new FileStore(folder), {
    get(store, name) {
      if (name === "read") reads += 1;
      const member = store[name as keyof Store];
      return typeof member === "function" ? (member as () => unknown).bind(store) : member;
    },
  });
  // Nobody listens there: figures come from object storage.
  const redis = connectRedis("redis://127.0.0.1:1", "steady");
  redis.disconnect();
  return { views: new JobViews(new Stores(), new JobStates(counted), redis), reads: () => reads };
}

const page = { before: null, limit: 20, state: null };
const last = (many: number, step = 1) => Array.from({ length: many }, (_, n) => idOf(JOBS - 1 - n * step));

test("a page of ten thousand jobs reads those that it shows", async () => {
  const { views, reads } = open();
  const first = await views.page(page, EVERYBODY);
  expect(first.jobs.map(({ id }) => id)).toEqual(last(20));
  expect(reads()).toBe(20);
  const second = await views.page({ ...page, before: first.next }, EVERYBODY);
  expect(second.jobs.map(({ id }) => id)).toEqual(last(40).slice(20));
});

test("a filter looks at so many, and says where to go on", async () => {
  const { views, reads } = open();
  const paused = await views.page({ ...page, state: "paused" }, EVERYBODY);
  expect(paused.jobs.map(({ state }) => state)).toEqual(Array(20).fill("paused"));
  const none = await views.page({ ...page, state: "failed" }, EVERYBODY);
  expect(none).toEqual({ jobs: [], next: last(200).at(-1) });
  expect(reads()).toBeLessThanOrEqual(400);
});

test("a caller sees the jobs whose outputs are theirs, and the others do not exist", async () => {
  const { views } = open();
  const odd: Caller = { key: "k", scope: "read", readable: [], writable: [], visible: [`file://${folder}/odd/`] };
  const { jobs } = await views.page(page, odd);
  expect(jobs.map(({ id }) => id)).toEqual(last(20, 2));
  await expect(views.find(idOf(JOBS - 2), odd)).rejects.toMatchObject({
    code: "JOB_NOT_FOUND",
    message: `no job ${idOf(JOBS - 2)}`,
  });
  expect((await views.find(idOf(JOBS - 1), odd)).state.id).toBe(idOf(JOBS - 1));
});

test("the last page has no next", async () => {
  const { views } = open();
  const { jobs, next } = await views.page({ ...page, before: idOf(3) }, EVERYBODY);
  // Their outputs are gone.
  expect({ jobs, next }).toEqual({ jobs: [], next: null });
});

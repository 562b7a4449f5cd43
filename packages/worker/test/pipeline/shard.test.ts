import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CapfleetError,
  decodingSchema,
  type InputRecord,
  inputSchema,
  type JobFile,
  layout,
  stateLayout,
  type TaskSpec,
} from "@capfleet/shared/contract";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import pLimit from "p-limit";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Intents } from "../../src/pipeline/intent.ts";
import { runShard, type ShardContext } from "../../src/pipeline/shard.ts";

let folder: string;
let out: Store;
let state: Store;
const stores = storesFromEnv({});

const record = (n: number): InputRecord => ({ id: String(n), image: `file:///pictures/${n}.jpg` });
const broken = { id: "line 9", image: null, error: { code: "RECORD_INVALID", message: "not JSON", retryable: false } };
const job = { id: "job_1" };
const caption: TaskSpec = { name: "caption", decoding: decodingSchema.parse({}), captions: 1, prompt: null };

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-shard-"));
  out = stores.at(`${folder}/out/`);
  state = stores.at(`${folder}/state/`);
  await mkdir(join(folder, "in"));
  await writeJob(caption);
  await writeShard([record(0), record(1), broken, record(2)]);
  await want("run");
});
afterEach(() => rm(folder, { recursive: true }));

async function writeJob(task: TaskSpec): Promise<void> {
  const spec: JobFile["spec"] = {
    task,
    engines: [{ model: "m", digest: "d", checkpoint: "c", precision: "fp32" }],
    input: inputSchema.parse({ kind: "prefix", uri: `file://${folder}/in/` }),
    limit: null,
    format: "jsonl",
    shardSize: null,
    lane: "normal",
    readable: null,
  };
  const created = new Date(0).toISOString();
  const file: JobFile = { schema: 1, id: job.id, capfleet: "0.1.0", created, fingerprint: "f", spec };
  await out.put(layout.job, JSON.stringify(file));
}

async function writeShard(records: InputRecord[]): Promise<void> {
  const end = { records: records.length, planned: records.length, cursor: { source: "prefix", after: "x" } };
  await out.put(layout.shard(0), [...records, end].map((line) => JSON.stringify(line)).join("\n"));
}

async function want(intent: string): Promise<void> {
  const common = { schema: 1, id: job.id, out: out.uri, created: new Date(0).toISOString(), runner: "fleet" };
  const body = { ...common, checkpoints: null, intent, ended: null, reason: null };
  await state.put(stateLayout.job(job.id), JSON.stringify(body));
}

function run(
  label: (image: string) => Promise<object>,
  signal = new AbortController().signal,
  atOnce = 8,
  retries = 0,
) {
  const context: ShardContext = {
    stores,
    intents: new Intents(state),
    admit: pLimit(atOnce),
    label: ({ image }) => label(image!),
    fetch: async () => {},
  };
  return runShard({ job: job.id, shard: 0, out: out.uri, retries, rows: 0, failed: 0 }, context, signal);
}

const good = async (image: string) => ({ caption: image.slice(-5), score: -1 });
const rows = async () =>
  (await out.read(layout.result(0))).bytes
    .toString()
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

test("rows stand in input order whatever finishes first; row errors and bad lines become rows", async () => {
  const late = Promise.withResolvers<void>();
  const result = await run(async (image) => {
    if (image.endsWith("0.jpg")) await late.promise;
    if (image.endsWith("1.jpg")) throw new CapfleetError("IMAGE_NOT_FOUND", "1.jpg does not exist");
    if (image.endsWith("2.jpg")) late.resolve();
    return good(image);
  });
  const errors = { IMAGE_NOT_FOUND: 1, RECORD_INVALID: 1 };
  expect(result).toMatchObject({ outcome: "committed", sums: { rows: 4, failed: 2, warned: 0, errors } });
  expect(await rows()).toEqual([
    { id: "0", image: "file:///pictures/0.jpg", caption: "0.jpg", score: -1 },
    {
      id: "1",
      image: "file:///pictures/1.jpg",
      error: { code: "IMAGE_NOT_FOUND", message: "1.jpg does not exist", retryable: false },
    },
    broken,
    { id: "2", image: "file:///pictures/2.jpg", caption: "2.jpg", score: -1 },
  ]);
});

test("rows with warnings are counted", async () => {
  const result = await run(async (image) => ({ ...(await good(image)), ...(image.endsWith("1.jpg") && CUT) }));
  const errors = { RECORD_INVALID: 1 };
  expect(result).toMatchObject({ outcome: "committed", sums: { rows: 4, failed: 1, warned: 1, errors } });
  expect((await rows())[1]).toMatchObject(CUT);
});
const CUT = { warnings: ["the text is too long for the model: its end was cut off"] };

test("a record without image is labelled where the task needs none; neither does it need the input's disk", async () => {
  await rm(join(folder, "in"), { recursive: true });
  await writeJob({ name: "embed", texts: { column: "text" } });
  const texts = { id: "line 1", image: null, texts: ["a dog"] };
  const lacks = { id: "line 2", image: null, error: { code: "TEXT_MISSING", message: "no `text`", retryable: false } };
  await writeShard([texts, lacks]);
  expect(await run(async () => ({ embedding: [1] }))).toMatchObject({ outcome: "committed" });
  expect(await rows()).toEqual([{ id: "line 1", image: null, embedding: [1] }, lacks]);
});

test("a shard error throws out, and nothing is written", async () => {
  const running = run(async (image) => {
    if (image.endsWith("1.jpg")) throw new CapfleetError("STORE_ACCESS_DENIED", "403");
    return good(image);
  });
  await expect(running).rejects.toMatchObject({ code: "STORE_ACCESS_DENIED" });
  expect(await out.stat(layout.result(0))).toBeNull();
});

test("a bug is no row either", async () => {
  await expect(run(async () => Promise.reject(new TypeError("oops")))).rejects.toThrow("oops");
  expect(await out.stat(layout.result(0))).toBeNull();
});

describe("somebody else's results stand", () => {
  test("when they are there at the start, nothing is done again", async () => {
    await out.put(layout.result(0), "theirs");
    let calls = 0;
    const counted = async (image: string) => {
      calls += 1;
      return good(image);
    };
    expect(await run(counted)).toEqual({ outcome: "already" });
    expect(calls).toBe(0);
  });

  test("when they come while we work, ours are dropped", async () => {
    const result = await run(async (image) => {
      await out.put(layout.result(0), "theirs");
      return good(image);
    });
    expect(result).toEqual({ outcome: "already" });
    expect((await out.read(layout.result(0))).bytes.toString()).toBe("theirs");
  });
});

describe("a retry", () => {
  const retry = (label: (image: string) => Promise<object>, retries = 1) => run(label, undefined, 8, retries);
  const fails =
    (code: "INFERENCE_FAILED" | "IMAGE_EMPTY", ...images: string[]) =>
    async (image: string) => {
      if (images.some((name) => image.endsWith(name))) throw new CapfleetError(code, "oops");
      return good(image);
    };

  test("does the rows again that failed and may succeed, and no others; their sums count anew", async () => {
    await run(fails("INFERENCE_FAILED", "1.jpg"));
    const asked: string[] = [];
    const result = await retry(async (image) => {
      asked.push(image);
      return { caption: "again", score: -2 };
    });
    expect(asked).toEqual(["file:///pictures/1.jpg"]);
    const errors = { RECORD_INVALID: 1 };
    expect(result).toMatchObject({ outcome: "committed", sums: { rows: 4, failed: 1, warned: 0, errors } });
    expect((await rows()).map(({ caption }) => caption)).toEqual(["0.jpg", "again", undefined, "2.jpg"]);
  });

  test("what fails again says in which attempt, and waits for the next one", async () => {
    await run(fails("INFERENCE_FAILED", "1.jpg"));
    expect(await retry(fails("INFERENCE_FAILED", "1.jpg"))).toMatchObject({
      outcome: "committed",
      sums: { failed: 2 },
    });
    expect((await rows())[1].error).toEqual({ code: "INFERENCE_FAILED", message: "oops", retryable: true, attempt: 2 });
    expect(await retry(good)).toEqual({ outcome: "already" });
    expect(await retry(good, 2)).toMatchObject({ outcome: "committed", sums: { failed: 1 } });
  });

  test("leaves alone what would fail again", async () => {
    await run(fails("IMAGE_EMPTY", "1.jpg"));
    expect(await retry(good)).toEqual({ outcome: "already" });
  });

  test("does a shard without results whole", async () => {
    expect(await retry(fails("INFERENCE_FAILED", "1.jpg"))).toMatchObject({ outcome: "committed", sums: { rows: 4 } });
    expect((await rows())[1].error.attempt).toBe(2);
  });

  test("drops its rows where another attempt has replaced them meanwhile", async () => {
    await run(fails("INFERENCE_FAILED", "1.jpg"));
    const result = await retry(async (image) => {
      await out.put(layout.result(0), "theirs");
      return good(image);
    });
    expect(result).toEqual({ outcome: "already" });
    expect((await out.read(layout.result(0))).bytes.toString()).toBe("theirs");
  });
});

describe("intent", () => {
  test.each(["paused", "cancelled"])("a %s job's shard is not begun", async (intent) => {
    await want(intent);
    expect(await run(good)).toEqual({ outcome: "withdrawn" });
  });

  test("a job whose state has been deleted counts as cancelled", async () => {
    await state.delete(stateLayout.job(job.id));
    expect(await run(good)).toEqual({ outcome: "withdrawn" });
  });

  test("stopped in the middle it throws the signal's reason and writes nothing", async () => {
    const stop = new AbortController();
    const reason = new Error("stopping");
    const running = run(
      async (image) => {
        stop.abort(reason);
        return good(image);
      },
      stop.signal,
      1,
    );
    await expect(running).rejects.toBe(reason);
    expect(await out.stat(layout.result(0))).toBeNull();
  });
});

test("a worker without the input's disk says so instead of writing rows that say `not found`", async () => {
  await rm(join(folder, "in"), { recursive: true });
  await expect(run(good)).rejects.toMatchObject({ code: "STORE_BUCKET_NOT_FOUND" });
});

test("a shard file that was not written whole stops the job", async () => {
  const end = { records: 3, planned: 3, cursor: { source: "prefix", after: "x" } };
  await out.put(layout.shard(0), [record(0), end].map((line) => JSON.stringify(line)).join("\n"));
  await expect(run(good)).rejects.toMatchObject({ code: "JOB_FAILED", message: expect.stringContaining("000000") });
});

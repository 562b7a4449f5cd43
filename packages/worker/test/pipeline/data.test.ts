/** A shard's data file: what is in it, and which one stays when attempts meet, lose, fail or are repeated. */
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CapfleetError,
  decodingSchema,
  type Format,
  type InputRecord,
  inputSchema,
  type JobFile,
  type JobTaskSpec,
  layout,
  type ResultRow,
  stateLayout,
} from "@capfleet/shared/contract";
import { type Store, storesFromEnv } from "@capfleet/shared/storage";
import { asyncBufferFromFile, parquetReadObjects } from "hyparquet";
import pLimit from "p-limit";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DEMO } from "../../../../test/support/processes.ts";
import { runShard, type ShardContext } from "../../src/pipeline/shard.ts";

const IMAGES = ["scene-003.jpg", "scene-006.png", "scene-018.webp", "scene-004.jpg"];
const caption: JobTaskSpec = { name: "caption", decoding: decodingSchema.parse({}), captions: 1, prompt: null };
const filter: JobTaskSpec = { name: "filter", texts: { column: "alt" }, threshold: 0.5 };
const stores = storesFromEnv({});
let folder: string;
let out: Store;
let state: Store;
let gone: Set<string>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "capfleet-data-"));
  out = stores.at(`${folder}/out/`);
  state = stores.at(`${folder}/state/`);
  gone = new Set();
  const records = IMAGES.map((name): InputRecord => ({ id: name, image: `file://${DEMO}images/${name}` }));
  const end = { records: 4, planned: 4, cursor: { source: "prefix", after: "x" } };
  await out.put(layout.shard(0), [...records, end].map((line) => JSON.stringify(line)).join("\n"));
  await want("run");
});
afterEach(() => rm(folder, { recursive: true }));

async function want(intent: string): Promise<void> {
  const common = { schema: 1, id: "job_1", out: out.uri, created: new Date(0).toISOString(), runner: "fleet" };
  const body = { ...common, checkpoints: null, intent, ended: null, reason: null };
  await state.put(stateLayout.job("job_1"), JSON.stringify(body));
}

/** As it is now: a worker remembers it for a moment. */
const intent = async () => JSON.parse((await state.read(stateLayout.job("job_1"))).bytes.toString()).intent;

type Label = (name: string) => Promise<Partial<ResultRow>>;

async function run(format: Format, label: Label, { task = caption, retries = 0, store = out } = {}) {
  const spec: JobFile["spec"] = {
    task,
    engines: [{ model: "m", digest: "d", checkpoint: "c", precision: "fp32" }],
    input: inputSchema.parse({ kind: "prefix", uri: `file://${DEMO}images/` }),
    limit: null,
    format,
    shardSize: null,
    lane: "normal",
    readable: null,
  };
  const created = new Date(0).toISOString();
  const file: JobFile = { schema: 1, id: "job_1", capfleet: "0.1.0", created, fingerprint: "f", spec };
  await out.put(layout.job, JSON.stringify(file));
  const fetch: ShardContext["fetch"] = async ({ image }, _, keep) => {
    const name = image!.split("/").at(-1)!;
    if (gone.has(name)) throw new CapfleetError("IMAGE_NOT_FOUND", `${name} does not exist`);
    await keep(await readFile(join(DEMO, "images", name)));
  };
  const context: ShardContext = {
    stores: { at: () => store } as unknown as ShardContext["stores"],
    intents: { of: intent } as unknown as ShardContext["intents"],
    admit: pLimit(3),
    fetch,
    label: async (record, _, signal, keep) => {
      if (keep) await fetch(record, signal, keep);
      return label(record.id);
    },
  };
  const progress = { job: "job_1", shard: 0, out: out.uri, retries, rows: 0, failed: 0 };
  return runShard(progress, context, new AbortController().signal);
}

const good: Label = async (name) => ({ caption: `of ${name}`, score: -1 });
const failing =
  (code: "IMAGE_NOT_FOUND" | "INFERENCE_FAILED", ...names: string[]): Label =>
  async (name) => {
    if (names.includes(name)) throw new CapfleetError(code, `${name} failed`);
    return good(name);
  };
const rows = async () => {
  const text = (await out.read(layout.result(0))).bytes.toString().trimEnd();
  return text.split("\n").map((line) => JSON.parse(line) as ResultRow);
};
const files = async () => (await Array.fromAsync(out.list({ prefix: layout.data }))).map(({ key }) => key);
const namesIn = (key: string) =>
  execFileSync("tar", ["-tf", join(folder, "out", key)], { encoding: "utf8" })
    .trimEnd()
    .split("\n");
const table = async (key: string) =>
  parquetReadObjects({ file: await asyncBufferFromFile(join(folder, "out", key)), columns: ["id", "caption"] });

test("a job of JSONL has no data file", async () => {
  const result = await run("jsonl", good);
  expect(result).toMatchObject({ outcome: "committed", sums: { rows: 4, failed: 0, warned: 0 } });
  expect(result).not.toHaveProperty("sums.files");
  expect(await files()).toEqual([]);
  expect(await rows()).not.toContainEqual(expect.objectContaining({ data: expect.anything() }));
});

test("parquet: the labelled rows, in order; they name the file, and rows with errors don't", async () => {
  const result = await run("parquet", failing("IMAGE_NOT_FOUND", IMAGES[1]!));
  expect(result).toMatchObject({ outcome: "committed", sums: { rows: 4, failed: 1, files: 1 } });
  const [file] = await files();
  expect(file).toMatch(/^data\/000000-[0-9a-f]{8}\.parquet$/);
  expect((await rows()).map(({ data }) => data)).toEqual([file, undefined, file, file]);
  const labelled = IMAGES.filter((_, i) => i !== 1);
  expect(await table(file!)).toEqual(labelled.map((id) => ({ id, caption: `of ${id}` })));
});

test("webdataset: the images' own bytes, in the order of the rows, whatever is fetched first", async () => {
  const last = Promise.withResolvers<void>();
  await run("webdataset", async (name) => {
    if (name === IMAGES[0]) await last.promise;
    if (name === IMAGES[3]) last.resolve();
    return good(name);
  });
  const [file] = await files();
  const expected = [".jpg", ".png", ".webp", ".jpg"].map((ending, i) =>
    [ending, ".txt", ".json"].map((each) => `000000000${i}${each}`),
  );
  expect(namesIn(file!)).toEqual(expected.flat());
  const bytes = execFileSync("tar", ["-xOf", join(folder, "out", file!), "0000000001.png"], { maxBuffer: 2 ** 26 });
  expect(bytes.equals(await readFile(join(DEMO, "images", IMAGES[1]!)))).toBe(true);
});

test("webdataset: a sample for each text that stays; without one there is no file", async () => {
  const pair = (text: string, kept: boolean) => ({ text, origin: "web" as const, itm: kept ? 1 : 0, kept });
  const pairs: Record<string, ResultRow["pairs"]> = {
    [IMAGES[1]!]: [pair("a", true), pair("b", false), pair("c", true)],
  };
  await run("webdataset", async (name) => ({ pairs: pairs[name] ?? [pair("x", false)] }), { task: filter });
  const [file] = await files();
  expect(namesIn(file!)).toEqual(
    ["000", "001"].flatMap((n) => [".png", ".txt", ".json"].map((ending) => `0000000001_${n}${ending}`)),
  );
  await out.delete(layout.result(0));
  await out.delete(file!);
  await run("webdataset", async () => ({ pairs: [] }), { task: filter });
  expect(await files()).toEqual([]);
  expect(await rows()).toHaveLength(4);
});

describe.each(["parquet", "webdataset"] as const)("%s", (format) => {
  test("a shard whose rows all failed has no file", async () => {
    const result = await run(format, failing("IMAGE_NOT_FOUND", ...IMAGES));
    expect(result).toMatchObject({ sums: { rows: 4, failed: 4 } });
    expect(await files()).toEqual([]);
  });

  test("an attempt that comes too late takes its file back", async () => {
    const slow: Store = Object.assign(stores.at(out.uri), {
      putStream: async (key: string, body: AsyncIterable<Uint8Array>) => {
        const size = await out.putStream(key, body);
        await out.put(layout.result(0), "theirs");
        return size;
      },
    });
    expect(await run(format, good, { store: slow })).toEqual({ outcome: "already" });
    expect(await files()).toEqual([]);
  });

  test("one that is later still writes none: nobody may be left to take it away", async () => {
    await run(format, failing("INFERENCE_FAILED", IMAGES[1]!));
    const theirs = (await rows()).map((row) => `${JSON.stringify(row)}\n`).join("");
    const stuck: Store = Object.assign(stores.at(out.uri), {
      putStream: () => Promise.reject(new Error("a file was written")),
    });
    const late: Label = async (name) => {
      await out.put(layout.result(0), theirs);
      return good(name);
    };
    expect(await run(format, late, { store: stuck, retries: 1 })).toEqual({ outcome: "already" });
    await out.delete(layout.result(0));
    expect(await run(format, late, { store: stuck })).toEqual({ outcome: "already" });
  });

  test("a job that is cancelled while the file is written keeps none", async () => {
    const slow: Store = Object.assign(stores.at(out.uri), {
      putStream: async (key: string, body: AsyncIterable<Uint8Array>) => {
        const size = await out.putStream(key, body);
        await want("cancelled");
        return size;
      },
    });
    expect(await run(format, good, { store: slow })).toEqual({ outcome: "withdrawn" });
    expect(await files()).toEqual([]);
    expect(await out.stat(layout.result(0))).toBeNull();
  });

  test("a commit whose answer is lost may have happened: its file stays", async () => {
    const lossy: Store = Object.assign(stores.at(out.uri), {
      putIfAbsent: async (key: string, body: string) => {
        await out.putIfAbsent(key, body);
        throw new CapfleetError("STORE_UNAVAILABLE", "the answer was lost");
      },
    });
    await expect(run(format, good, { store: lossy })).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
    expect(await files()).toEqual([(await rows())[0]!.data]);
    expect(await run(format, good)).toEqual({ outcome: "already" });
    expect(await files()).toEqual([(await rows())[0]!.data]);
  });

  test("a shard error leaves nothing", async () => {
    const broken: Label = async (name) => {
      if (name === IMAGES[2]) throw new CapfleetError("STORE_ACCESS_DENIED", "403");
      return good(name);
    };
    await expect(run(format, broken)).rejects.toMatchObject({ code: "STORE_ACCESS_DENIED" });
    expect(await files()).toEqual([]);
  });

  test("a retry writes the file anew, whole, and the old one goes", async () => {
    await run(format, failing("INFERENCE_FAILED", IMAGES[1]!));
    const [first] = await files();
    const asked: string[] = [];
    const counted: Label = (name) => {
      asked.push(name);
      return good(name);
    };
    const result = await run(format, counted, { retries: 1 });
    expect(result).toMatchObject({ outcome: "committed", sums: { rows: 4, failed: 0, warned: 0, files: 1 } });
    expect(asked).toEqual([IMAGES[1]]);
    const [second, ...others] = await files();
    expect(others).toEqual([]);
    expect(second).not.toBe(first);
    expect((await rows()).map(({ data }) => data)).toEqual([second, second, second, second]);
    if (format === "parquet") expect(await table(second!)).toEqual(IMAGES.map((id) => ({ id, caption: `of ${id}` })));
    else expect(namesIn(second!)).toHaveLength(12);
  });
});

test("an image that is gone when its shard is retried: the label holds, says so, and is in no tar", async () => {
  await run("webdataset", failing("INFERENCE_FAILED", IMAGES[1]!, IMAGES[2]!));
  gone.add(IMAGES[0]!);
  const result = await run("webdataset", failing("INFERENCE_FAILED", IMAGES[2]!), { retries: 1 });
  expect(result).toMatchObject({ outcome: "committed", sums: { failed: 1, warned: 1, files: 1 } });
  const [file] = await files();
  const [first, second] = await rows();
  const warnings = ["the image could not be read again for the tar: IMAGE_NOT_FOUND"];
  expect(first).toEqual({ id: IMAGES[0], image: expect.any(String), caption: `of ${IMAGES[0]}`, score: -1, warnings });
  expect(second).toMatchObject({ caption: `of ${IMAGES[1]}`, data: file });
  expect(namesIn(file!).map((name) => name.slice(0, 10))).not.toContain("0000000000");
  expect(namesIn(file!)).toHaveLength(6);
  // Once more: it is said once.
  await run("webdataset", good, { retries: 2 });
  expect((await rows())[0]!.warnings).toEqual(warnings);
});

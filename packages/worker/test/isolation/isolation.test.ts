/** Real processes with a real engine, which crash and hang at fault points as native code does. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { readConfig } from "@capfleet/shared/config";
import { decodingSchema, type InputRecord, type JobFile } from "@capfleet/shared/contract";
import { createLog } from "@capfleet/shared/log";
import { findLocalModel } from "@capfleet/shared/models";
import { storesFromEnv } from "@capfleet/shared/storage";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { DEMO, until } from "../../../../test/support/processes.ts";
import { EngineHost } from "../../src/engine/host.ts";
import { Isolation } from "../../src/isolation/isolation.ts";
import { prepareEngine } from "../../src/models/prepare.ts";
import { Labeler } from "../../src/pipeline/labeler.ts";

const config = readConfig();
const stores = storesFromEnv({});
const { signal } = new AbortController();
const image = (name: string) => ({ id: name, image: `file://${DEMO}images/${name}` });
const RECORDS = ["scene-003.jpg", "scene-006.png", "scene-018.webp"].map(image);
const [first, second, third] = RECORDS as [InputRecord, InputRecord, InputRecord];

let host: EngineHost;
let labeler: Labeler;
let engine: { folders: string[]; threads: number; device: string };
let job: JobFile;
/** What the worker makes of the records, in one batch. */
let rows: object[];

beforeAll(async () => {
  const model = await findLocalModel("demo-caption", "fp32", config);
  const { folder } = await prepareEngine(model, config, stores, {});
  engine = { folders: [folder], threads: 1, device: "cpu" };
  host = await EngineHost.start(engine);
  labeler = new Labeler(host, stores, config);
  const decoding = decodingSchema.parse({ topP: 0.9, seed: 7 });
  const task = { name: "caption", decoding, captions: 2, prompt: null } as const;
  job = { id: "job_1", spec: { engines: [model.ref], task } } as unknown as JobFile;
  rows = await Promise.all(RECORDS.map((record) => labeler.label(record, job, signal)));
});
afterAll(() => host.close());
afterEach(() => vi.unstubAllEnvs());
vi.setConfig({ testTimeout: 120_000 });

/** `faults`: of the processes that it starts. This one has passed fault points without any, and has looked once for all. */
function isolation(faults: string, recordSeconds = 60): Isolation {
  vi.stubEnv("CAPFLEET_FAULTS", faults);
  const log = createLog("test", "silent");
  return new Isolation(labeler, { engine, limits: config, recordSeconds, log });
}

const children = async () =>
  (await readFile(`/proc/self/task/${process.pid}/children`, "utf8")).trim().split(" ").filter(Boolean);

test("rows are the same to the last bit as in a batch; an image's bytes are kept; the process ends with its last shard", async () => {
  const isolated = isolation("");
  const before = await children();
  const places = [isolated.enter(), isolated.enter()];
  const kept: Buffer[] = [];
  for (const [i, record] of RECORDS.entries()) {
    const keep = async (bytes: Buffer) => void kept.push(bytes);
    expect(await places[i % 2]!.label(record, job, signal, keep)).toEqual(rows[i]);
  }
  expect(kept[1]).toEqual(await readFile(join(DEMO, "images/scene-006.png")));
  const gone = { ...first, image: `file://${DEMO}images/gone.jpg` };
  await expect(places[0]!.label(gone, job, signal)).rejects.toMatchObject({ code: "IMAGE_NOT_FOUND" });
  const broken = { ...first, image: `file://${DEMO}README.md` };
  await expect(places[0]!.label(broken, job, signal)).rejects.toMatchObject({ code: "IMAGE_UNREADABLE" });
  places[0]![Symbol.dispose]();
  const [child, ...others] = (await children()).filter((pid) => !before.includes(pid));
  expect(others).toEqual([]);
  expect(await readFile(`/proc/${child}/cmdline`, "utf8")).not.toContain("redis");
  places[1]![Symbol.dispose]();
  await until("the process to be gone", async () => (await children()).length === before.length);
});

test("a record that crashes the decoder, or the engine, or hangs, costs its own row; the others are right", async () => {
  const faults = `worker.decode=abort:${first.id},worker.infer=abort:${second.id},worker.decode=stop:hangs`;
  using place = isolation(faults, 8).enter();
  const label = (record: InputRecord) => place.admit(() => place.label(record, job, signal));
  const results = await Promise.allSettled([first, second, { ...first, id: "hangs" }, third].map(label));
  const messages = results.map((result) => (result.status === "rejected" ? result.reason.message : "labelled"));
  expect(messages).toEqual([
    "the process that decoded the image died (SIGABRT)",
    "the process that ran the model on it died (SIGABRT)",
    "the process that decoded the image took longer than 8 s",
    "labelled",
  ]);
  for (const result of results.slice(0, 3)) {
    expect(result).toMatchObject({ reason: { code: "WORKER_CRASHED", scope: "row", retryable: false } });
  }
  expect(results[3]).toEqual({ status: "fulfilled", value: rows[2] });
});

test("where a blank picture ends the process as well, no record is blamed", async () => {
  using place = isolation("worker.infer=kill").enter();
  await expect(place.label(first, job, signal)).rejects.toMatchObject({
    code: "WORKER_LOST",
    scope: "shard",
    message: "the process that ran the model on it died (SIGKILL), also with a blank picture: it is no record's fault",
  });
});

test("an engine that can't be loaded a second time is a shard error", async () => {
  const log = createLog("test", "silent");
  const nowhere = { ...engine, folders: ["/nowhere"] };
  using place = new Isolation(labeler, { engine: nowhere, limits: config, recordSeconds: 60, log }).enter();
  await expect(place.label(first, job, signal)).rejects.toMatchObject({ scope: "shard" });
});

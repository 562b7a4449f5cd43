import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { decodingSchema, type InputRecord, type JobFile, type TaskSpec } from "@capfleet/shared/contract";
import { storesFromEnv } from "@capfleet/shared/storage";
import { expect, test } from "vitest";
import { DEMO } from "../../../../test/support/processes.ts";
import type { EngineInfo, Output } from "../../src/engine/engine.ts";
import type { LabelRequest } from "../../src/engine/thread.ts";
import { Labeler } from "../../src/pipeline/labeler.ts";
import { decode } from "../../src/pixels/index.ts";

const image = { width: 24, height: 24 };
const ref = { model: "m", digest: "d", checkpoint: "c", precision: "fp32" } as const;

/** Answers with what it was asked: an answer is its question, a score its text's length. */
class EchoHost {
  readonly infos: EngineInfo[] = [{ ref, tasks: [], image, batch: 4 }];
  readonly requests: Omit<LabelRequest, "id">[] = [];

  async label(request: Omit<LabelRequest, "id">): Promise<Output[]> {
    this.requests.push(request);
    const { name } = request.task;
    return request.items.map(({ texts }): Output => {
      const made = texts.map((text) => ({ ids: [], text, score: 0, rank: 0 }));
      if (name === "vqa") return { task: "vqa", answers: made, cut: [] };
      if (name === "itm") return { task: "itm", scores: texts.map(({ length }) => length), cut: [] };
      return { task: "embed", embeddings: texts.map(({ length }) => [length]), cut: [] };
    });
  }
}

const picture = pathToFileURL(`${DEMO}images/scene-003.jpg`).href;
const limits = { maxImageBytes: 2 ** 20, maxImagePixels: 2 ** 24, maxDecodeSeconds: 120 };
const signal = new AbortController().signal;
const decoding = decodingSchema.parse({});
const jobOf = (task: TaskSpec) => ({ spec: { engines: [ref], task } }) as unknown as JobFile;
const start = () => {
  const host = new EchoHost();
  return { host, labeler: new Labeler(host, storesFromEnv({}), limits) };
};

test("a record's own texts, or those of the job; the image's pixels go with them", async () => {
  const { host, labeler } = start();
  const column = jobOf({ name: "vqa", decoding, questions: { column: "q" }, template: null, answers: null });
  const own: InputRecord = { id: "1", image: picture, texts: ["one?", "two?"] };
  const answers = ["one?", "two?"].map((question) => ({ question, answer: question, score: 0 }));
  expect(await labeler.label(own, column, signal)).toEqual({ answers });

  const given = jobOf({ name: "itm", texts: { given: ["a dog"] } });
  expect(await labeler.label({ id: "2", image: picture }, given, signal)).toEqual({ itm: 5 });
  const pixels = await decode(await readFile(`${DEMO}images/scene-003.jpg`), image, {
    maxPixels: 2 ** 24,
    maxSeconds: 120,
  });
  for (const { slab } of host.requests) {
    expect(Buffer.from(slab!, 0, pixels.length).equals(Buffer.from(pixels))).toBe(true);
  }
});

test("where the task looks at no image none is fetched", async () => {
  const { host, labeler } = start();
  const job = jobOf({ name: "embed", texts: { column: "text" } });
  const record = { id: "1", image: "file:///nowhere/at-all.jpg", texts: ["a dog"] };
  expect(await labeler.label(record, job, signal)).toEqual({ embedding: [5] });
  expect(await labeler.label({ ...record, image: null }, job, signal)).toEqual({ embedding: [5] });
  expect(host.requests.map(({ slab }) => slab)).toEqual([null, null]);
  const looks = jobOf({ name: "itm", texts: { column: "text" } });
  await expect(labeler.label(record, looks, signal)).rejects.toMatchObject({ code: "IMAGE_NOT_FOUND" });
});

test("the same task of two jobs shares a batch, another one does not", async () => {
  const { host, labeler } = start();
  const task = (text: string) => jobOf({ name: "embed", texts: { given: [text] } });
  const record = (id: string) => ({ id, image: null });
  const jobs = [task("a"), task("a"), task("b"), task("a"), task("a")];
  await Promise.all(jobs.map((job, n) => labeler.label(record(String(n)), job, signal)));
  expect(host.requests.map(({ items }) => items.map(({ id }) => id))).toEqual([["0", "1", "3", "4"], ["2"]]);
});

test("an engine that is not here is the shard's error", async () => {
  const { labeler } = start();
  const job = jobOf({ name: "embed", texts: { given: ["a"] } });
  job.spec.engines = [{ ...ref, digest: "other" }];
  await expect(labeler.label({ id: "1", image: null }, job, signal)).rejects.toMatchObject({ code: "ENGINE_FAILED" });
});

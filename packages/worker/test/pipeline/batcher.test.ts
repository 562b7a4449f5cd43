import { CapfleetError, decodingSchema, type TaskSpec } from "@capfleet/shared/contract";
import { expect, test } from "vitest";
import type { EngineInfo, Output } from "../../src/engine/engine.ts";
import type { LabelRequest } from "../../src/engine/thread.ts";
import { Batcher, type KeyedTask } from "../../src/pipeline/batcher.ts";

/**
 * A fake engine host, for what a real one does not do on demand: fail on a given image, or hold an answer back. Images
 * are one pixel; the first byte is the image's number, and the caption. Without images an item's id is its number.
 */
class FakeHost {
  readonly infos = [{ image: { width: 1, height: 1 }, batch: 4 } as unknown as EngineInfo];
  readonly batches: number[][] = [];
  readonly tasks: TaskSpec[] = [];
  bad = new Set<number>();
  badCode: "ENGINE_FAILED" | "INVALID_OPTION" = "ENGINE_FAILED";
  #gate: Promise<void> = Promise.resolve();
  open: () => void = () => {};

  hold(): void {
    this.#gate = new Promise((resolve) => {
      this.open = resolve;
    });
  }

  async label({ task, items, slab, first }: Omit<LabelRequest, "id">): Promise<Output[]> {
    const numbers = items.map(({ id }, i) => (slab ? new Uint8Array(slab)[(first + i) * 3]! : Number(id)));
    this.batches.push(numbers);
    this.tasks.push(task);
    await this.#gate;
    if (numbers.some((n) => this.bad.has(n))) throw new CapfleetError(this.badCode, "bad image");
    return numbers.map((n) => ({
      task: "caption",
      captions: [{ ids: [n], text: String(n), score: 0, rank: 0 }],
    }));
  }
}

const keyed = (spec: TaskSpec): KeyedTask => ({ key: JSON.stringify(spec), spec });
const caption = (maxNewTokens = 20) =>
  keyed({ name: "caption", decoding: decodingSchema.parse({ maxNewTokens }), captions: 1, prompt: null });
const greedy = caption();
const image = (n: number) => new Uint8Array([n, 0, 0]);
const item = (n: number, texts: string[] = []) => ({ id: String(n), texts });
const text = (output: Output) => (output.task === "caption" ? output.captions[0]!.text : output.task);

test("full batches leave at once, in order; a rest leaves after its wait; everyone gets their own answer", async () => {
  const host = new FakeHost();
  const batcher = new Batcher(host, 0, 100);
  const outputs = await Promise.all(Array.from({ length: 10 }, (_, n) => batcher.label(greedy, item(n), image(n))));
  expect(outputs.map(text)).toEqual(Array.from({ length: 10 }, (_, n) => String(n)));
  expect(host.batches).toEqual([
    [0, 1, 2, 3],
    [4, 5, 6, 7],
    [8, 9],
  ]);
});

test("while the engine is busy a partial batch fills up instead of leaving", async () => {
  const host = new FakeHost();
  host.hold();
  const batcher = new Batcher(host, 0, 0);
  const first = batcher.label(greedy, item(1), image(1));
  await expect.poll(() => host.batches.length).toBe(1);
  const rest = [2, 3, 4].map((n) => batcher.label(greedy, item(n), image(n)));
  // The partial batch of three has waited longer than maxWait by now, but the engine is busy.
  await new Promise((resolve) => setImmediate(resolve));
  expect(host.batches).toEqual([[1]]);
  host.open();
  expect((await Promise.all([first, ...rest])).map(text)).toEqual(["1", "2", "3", "4"]);
  expect(host.batches).toEqual([[1], [2, 3, 4]]);
});

test("records of different tasks never share a batch, even when there are more kinds than slabs", async () => {
  const host = new FakeHost();
  const batcher = new Batcher(host, 0, 100);
  const kinds: KeyedTask[] = [
    ...[1, 2, 3].map((maxNewTokens) => caption(maxNewTokens)),
    ...["a", "b"].map((given) => keyed({ name: "itm", texts: { given: [given] } })),
    keyed({ name: "itc", texts: { given: ["a"] } }),
    keyed({ name: "embed", texts: { given: ["a"] } }),
  ];
  const outputs = await Promise.all(
    kinds.flatMap((kind, i) => [1, 2].map((n) => batcher.label(kind, item(10 * i + n), image(10 * i + n)))),
  );
  expect(outputs.map(text)).toEqual(kinds.flatMap((_, i) => [1, 2].map((n) => String(10 * i + n))));
  for (const [i, batch] of host.batches.entries()) {
    const kind = new Set(batch.map((n) => Math.floor(n / 10)));
    expect([...kind].map((n) => kinds[n]!.spec)).toEqual([host.tasks[i]]);
  }
});

test("a batch is full of texts as well as of images; one record may have more than a batch", async () => {
  const host = new FakeHost();
  const batcher = new Batcher(host, 0, 100);
  const task = keyed({ name: "itm", texts: { column: "alt" } });
  const texts = (count: number) => Array.from({ length: count }, (_, n) => `text ${n}`);
  await Promise.all([30, 34, 1, 500, 1, 1].map((count, n) => batcher.label(task, item(n, texts(count)), image(n))));
  expect(host.batches).toEqual([[0, 1], [2], [3], [4, 5]]);
});

test("texts alone need no slab: they go to an engine whose slabs are all taken", async () => {
  const host = new FakeHost();
  host.hold();
  const batcher = new Batcher(host, 0, 100);
  const images = Array.from({ length: 12 }, (_, n) => batcher.label(greedy, item(n), image(n)));
  await expect.poll(() => host.batches.length).toBe(3);
  const embed = keyed({ name: "embed", texts: { column: "text" } });
  const texts = [20, 21, 22, 23].map((n) => batcher.label(embed, item(n, ["a text"]), new Uint8Array(0)));
  await expect.poll(() => host.batches.length).toBe(4);
  host.open();
  expect((await Promise.all([...images, ...texts])).map(text).slice(12)).toEqual(["20", "21", "22", "23"]);
});

test("a batch that fails is bisected down to the record at fault", async () => {
  const host = new FakeHost();
  host.bad.add(2);
  const batcher = new Batcher(host, 0, 100);
  const outcomes = await Promise.allSettled([0, 1, 2, 3].map((n) => batcher.label(greedy, item(n), image(n))));
  expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected", "fulfilled"]);
  expect((outcomes[2] as PromiseRejectedResult).reason).toMatchObject({ code: "INFERENCE_FAILED" });
  expect(host.batches).toEqual([[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]);
});

test("where nothing of a batch works the engine is at fault, not the records", async () => {
  const host = new FakeHost();
  for (const n of [0, 1, 2, 3]) host.bad.add(n);
  const batcher = new Batcher(host, 0, 100);
  const outcomes = await Promise.allSettled([0, 1, 2, 3].map((n) => batcher.label(greedy, item(n), image(n))));
  for (const outcome of outcomes) {
    expect((outcome as PromiseRejectedResult).reason).toMatchObject({ code: "ENGINE_FAILED" });
  }
});

test("what the model can't do at all is the task's fault: not bisected, and no record's error", async () => {
  const host = new FakeHost();
  host.bad.add(1);
  host.badCode = "INVALID_OPTION";
  const batcher = new Batcher(host, 0, 100);
  const outcomes = await Promise.allSettled([0, 1, 2, 3].map((n) => batcher.label(greedy, item(n), image(n))));
  for (const outcome of outcomes) {
    expect((outcome as PromiseRejectedResult).reason).toMatchObject({ code: "INVALID_OPTION" });
  }
  expect(host.batches).toEqual([[0, 1, 2, 3]]);
  // A record on its own is treated alike.
  await expect(batcher.label(greedy, item(1), image(1))).rejects.toMatchObject({ code: "INVALID_OPTION" });
});

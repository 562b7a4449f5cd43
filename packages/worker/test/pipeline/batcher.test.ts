import { CapfleetError, type Decoding } from "@capfleet/shared/contract";
import { expect, test } from "vitest";
import type { CaptionOutput, EngineInfo } from "../../src/engine/engine.ts";
import type { RunRequest } from "../../src/engine/thread.ts";
import { Batcher } from "../../src/pipeline/batcher.ts";

/**
 * A fake engine host, for what a real one does not do on demand: fail on a given image, or hold an answer back. Images
 * are one pixel; the first byte is the image's number, and the caption.
 */
class FakeHost {
  readonly infos = [{ image: { width: 1, height: 1 }, batchSizes: [1, 2, 4] } as unknown as EngineInfo];
  readonly batches: number[][] = [];
  bad = new Set<number>();
  #gate: Promise<void> = Promise.resolve();
  open: () => void = () => {};

  hold(): void {
    this.#gate = new Promise((resolve) => {
      this.open = resolve;
    });
  }

  async run({ slab, first, count }: Omit<RunRequest, "id">): Promise<CaptionOutput[]> {
    const images = Array.from({ length: count }, (_, i) => new Uint8Array(slab)[(first + i) * 3]!);
    this.batches.push(images);
    await this.#gate;
    if (images.some((image) => this.bad.has(image))) throw new CapfleetError("ENGINE_FAILED", "bad image");
    return images.map((image) => ({ ids: [image], text: String(image), score: 0 }));
  }
}

const image = (n: number) => new Uint8Array([n, 0, 0]);
const greedy: Decoding = { maxNewTokens: 20 };
const text = ({ text }: CaptionOutput) => text;

test("full batches leave at once, in order; a rest leaves after its wait; everyone gets their own answer", async () => {
  const host = new FakeHost();
  const batcher = new Batcher(host, 0, 5);
  const outputs = await Promise.all(Array.from({ length: 10 }, (_, n) => batcher.caption(image(n), greedy)));
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
  const first = batcher.caption(image(1), greedy);
  await expect.poll(() => host.batches.length).toBe(1);
  const rest = [2, 3, 4].map((n) => batcher.caption(image(n), greedy));
  // The partial batch of three has waited longer than maxWait by now, but the engine is busy.
  await new Promise((resolve) => setImmediate(resolve));
  expect(host.batches).toEqual([[1]]);
  host.open();
  expect((await Promise.all([first, ...rest])).map(text)).toEqual(["1", "2", "3", "4"]);
  expect(host.batches).toEqual([[1], [2, 3, 4]]);
});

test("images with different decoding never share a batch, even when there are more kinds than slabs", async () => {
  const host = new FakeHost();
  const batcher = new Batcher(host, 0, 5);
  const kinds = [1, 2, 3, 4, 5].map((maxNewTokens) => ({ maxNewTokens }));
  const outputs = await Promise.all(
    kinds.flatMap((kind, i) => [1, 2].map((n) => batcher.caption(image(10 * i + n), kind))),
  );
  expect(outputs).toHaveLength(10);
  for (const batch of host.batches) expect(new Set(batch.map((n) => Math.floor(n / 10))).size).toBe(1);
});

test("a batch that fails is bisected down to the record at fault", async () => {
  const host = new FakeHost();
  host.bad.add(2);
  const batcher = new Batcher(host, 0, 5);
  const outcomes = await Promise.allSettled([0, 1, 2, 3].map((n) => batcher.caption(image(n), greedy)));
  expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected", "fulfilled"]);
  expect((outcomes[2] as PromiseRejectedResult).reason).toMatchObject({ code: "INFERENCE_FAILED" });
  expect(host.batches).toEqual([[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]);
});

test("where nothing of a batch works the engine is at fault, not the records", async () => {
  const host = new FakeHost();
  for (const n of [0, 1, 2, 3]) host.bad.add(n);
  const batcher = new Batcher(host, 0, 5);
  const outcomes = await Promise.allSettled([0, 1, 2, 3].map((n) => batcher.caption(image(n), greedy)));
  for (const outcome of outcomes) {
    expect((outcome as PromiseRejectedResult).reason).toMatchObject({ code: "ENGINE_FAILED" });
  }
});

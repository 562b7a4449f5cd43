import { CapfleetError, decodingSchema } from "@capfleet/shared/contract";
import { expect, test } from "vitest";
import type { EngineInfo, Output } from "../../src/engine/engine.ts";
import type { LabelRequest } from "../../src/engine/thread.ts";
import { Turns } from "../../src/engine/turns.ts";
import { Batcher, type KeyedTask } from "../../src/pipeline/batcher.ts";

/**
 * A fake engine that runs a batch when the test says so, in the order in which the engine thread would. Images are one
 * pixel, whose first byte is the image's number; from 100 on they are urgent ones.
 */
class SteppedHost {
  readonly infos = [{ image: { width: 1, height: 1 }, batch: 4 } as unknown as EngineInfo];
  readonly ran: number[][] = [];
  readonly bad = new Set<number>();
  readonly #turns = new Turns<{ urgent: boolean; numbers: number[]; settle(): void }>();
  #running: { numbers: number[]; settle(): void } | undefined;

  label({ items, slab, first, urgent }: Omit<LabelRequest, "id">): Promise<Output[]> {
    const numbers = items.map((_, i) => new Uint8Array(slab!)[(first + i) * 3]!);
    return new Promise((resolve, reject) => {
      const settle = () => {
        if (numbers.some((n) => this.bad.has(n))) reject(new CapfleetError("ENGINE_FAILED", "bad image"));
        else resolve(numbers.map((n) => ({ task: "itm", scores: [n], cut: [] })));
      };
      this.#turns.add({ urgent, numbers, settle });
      if (!this.#running) this.#begin();
    });
  }

  /** Ends the batch that runs and begins the next one; what hears of it may send more. False where nothing ran. */
  async step(): Promise<boolean> {
    const ended = this.#running;
    ended?.settle();
    this.#begin();
    await new Promise((resolve) => setImmediate(resolve));
    return ended !== undefined;
  }

  #begin(): void {
    this.#running = this.#turns.next();
    if (this.#running) this.ran.push(this.#running.numbers);
  }
}

const task = (maxNewTokens = 20): KeyedTask => {
  const decoding = decodingSchema.parse({ maxNewTokens });
  return { key: String(maxNewTokens), spec: { name: "caption", decoding, captions: 1, prompt: null } };
};
const greedy = task();

/** Bulk records come in whole batches: a rest of them would wait for ever. */
const EVER_MS = 2 ** 31 - 1;

function start() {
  const host = new SteppedHost();
  const bulk = new Batcher(host, 0, EVER_MS);
  const urgent = new Batcher(host, 0, 0, bulk);
  const ask = (batcher: Batcher, n: number, kind = greedy) => {
    const answer = batcher.label(kind, { id: String(n), texts: [] }, new Uint8Array([n, 0, 0]));
    return answer.then((output) => (output.task === "itm" ? output.scores[0] : null));
  };
  return { host, bulk: (n: number) => ask(bulk, n), urgent: (n: number, kind?: KeyedTask) => ask(urgent, n, kind) };
}

test("an urgent record overtakes a full queue of bulk records: it waits for the batch that runs, and no other", async () => {
  const { host, bulk, urgent } = start();
  const all = Array.from({ length: 32 }, (_, n) => bulk(n));
  await host.step();
  expect(host.ran).toEqual([
    [0, 1, 2, 3],
    [4, 5, 6, 7],
  ]);
  const answer = urgent(100, task(5));
  await host.step();
  expect(host.ran[2]).toEqual([100]);
  await host.step();
  expect(await answer).toBe(100);
  while (await host.step());
  expect(await Promise.all(all)).toEqual(Array.from({ length: 32 }, (_, n) => n));
});

test("room in an urgent batch goes to waiting bulk records of the same task, in their order", async () => {
  const { host, bulk, urgent } = start();
  const all = Array.from({ length: 19 }, (_, n) => bulk(n));
  const answer = urgent(100);
  await host.step();
  // Three batches are with the engine already; what waits behind them comes along.
  expect(host.ran[1]).toEqual([100, 12, 13, 14]);
  while (await host.step());
  expect(await answer).toBe(100);
  expect(await Promise.all(all)).toEqual(Array.from({ length: 19 }, (_, n) => n));
});

test("alone with an idle engine it leaves at once", async () => {
  const { host, urgent } = start();
  const answer = urgent(100);
  expect(host.ran).toEqual([[100]]);
  await host.step();
  expect(await answer).toBe(100);
});

test("urgent records that come while one is with the engine share the next batches", async () => {
  const { host, bulk, urgent } = start();
  const running = [0, 1, 2, 3].map((n) => bulk(n));
  const answers = [100, 101, 102, 103, 104, 105].map((n) => urgent(n));
  while (await host.step());
  expect(await Promise.all(answers)).toEqual([100, 101, 102, 103, 104, 105]);
  expect(await Promise.all(running)).toEqual([0, 1, 2, 3]);
  expect(host.ran).toEqual([[0, 1, 2, 3], [100], [101, 102, 103, 104], [105]]);
});

test("urgent load without end: bulk records go on", async () => {
  const { host, bulk, urgent } = start();
  let done = 0;
  // Other tasks than bulk's, so that none comes along.
  const kind = task(5);
  for (let n = 0; n < 40; n++) void bulk(n).then(() => (done += 1));
  let open = true;
  let answered = 0;
  const asker = async () => {
    while (open) {
      await urgent(100, kind);
      answered += 1;
    }
  };
  const askers = Array.from({ length: 32 }, asker);
  for (let steps = 0; steps < 60; steps++) await host.step();
  expect(done).toBe(40);
  expect(answered).toBeGreaterThan(60);
  open = false;
  while (await host.step());
  await Promise.all(askers);
});

test("a bad image among bulk records that came along is that record's error alone", async () => {
  const { host, bulk, urgent } = start();
  host.bad.add(13);
  const all = Array.from({ length: 19 }, (_, n) => bulk(n));
  const outcomes = Promise.allSettled(all);
  const answer = urgent(100);
  while (await host.step());
  expect(await answer).toBe(100);
  const failed = (await outcomes).flatMap(({ status }, n) => (status === "rejected" ? [n] : []));
  expect(failed).toEqual([13]);
});

import { expect, test } from "vitest";
import { MAX_URGENT, Turns } from "../../src/engine/turns.ts";

const bulk = (n: number) => ({ name: `bulk ${n}`, urgent: false });
const urgent = (n: number) => ({ name: `urgent ${n}`, urgent: true });

test("urgent batches overtake the others, and each kind stays in order", () => {
  const turns = new Turns<ReturnType<typeof bulk>>();
  for (const batch of [bulk(1), bulk(2), urgent(1), bulk(3), urgent(2)]) turns.add(batch);
  const names = Array.from({ length: 6 }, () => turns.next()?.name);
  expect(names).toEqual(["urgent 1", "urgent 2", "bulk 1", "bulk 2", "bulk 3", undefined]);
});

test("however many urgent batches come, bulk work has a quarter of the turns", () => {
  const turns = new Turns<ReturnType<typeof bulk>>();
  for (let n = 0; n < 10; n++) turns.add(bulk(n));
  for (let n = 0; n < 10; n++) turns.add(urgent(n));
  const order = Array.from({ length: 40 }, (_, n) => {
    turns.add(urgent(10 + n));
    return turns.next()!.name;
  });
  const at = order.flatMap((name, i) => (name.startsWith("bulk") ? [i] : []));
  expect(at).toEqual(Array.from({ length: 10 }, (_, n) => MAX_URGENT + n * (MAX_URGENT + 1)));
});

test("where no bulk batch waits, urgent ones go on", () => {
  const turns = new Turns<ReturnType<typeof bulk>>();
  for (let n = 0; n < 6; n++) turns.add(urgent(n));
  expect(Array.from({ length: 6 }, () => turns.next()?.name)).toEqual([0, 1, 2, 3, 4, 5].map((n) => `urgent ${n}`));
});

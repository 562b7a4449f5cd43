import { expect, test } from "vitest";
import { Budget } from "../../src/datasets/budget.ts";

test("bytes are handed out up to the total, and waiters are served in order", async () => {
  const budget = new Budget(10);
  const order: string[] = [];
  const first = await budget.acquire(6);
  const large = budget.acquire(8).then((release) => {
    order.push("large");
    return release;
  });
  // It would fit, but the large one is first: a stream of small ones must not starve it.
  const small = budget.acquire(2).then((release) => {
    order.push("small");
    return release;
  });
  await Promise.resolve();
  expect(order).toEqual([]);
  first();
  (await large)();
  (await small)();
  expect(order).toEqual(["large", "small"]);
});

test("more than the whole budget waits for all of it instead of for ever", async () => {
  const budget = new Budget(10);
  const first = await budget.acquire(1);
  let got = false;
  const huge = budget.acquire(1_000).then((release) => {
    got = true;
    return release;
  });
  await Promise.resolve();
  expect(got).toBe(false);
  first();
  (await huge)();
  (await budget.acquire(10))();
});

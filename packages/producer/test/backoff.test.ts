import { expect, test } from "vitest";
import { Backoff } from "../src/reconcile/backoff.ts";

const reason = { code: "STORE_UNAVAILABLE", message: "503" };

test("a shard waits longer after each error", () => {
  const backoff = new Backoff();
  backoff.failed(3, reason, 0);
  expect([backoff.mayTry(3, 999), backoff.mayTry(3, 1_000), backoff.mayTry(4, 0)]).toEqual([false, true, true]);
  backoff.failed(3, reason, 1_000);
  expect([backoff.mayTry(3, 2_999), backoff.mayTry(3, 3_000)]).toEqual([false, true]);
  for (let i = 0; i < 20; i++) backoff.failed(3, reason, 10_000);
  expect([backoff.mayTry(3, 39_999), backoff.mayTry(3, 40_000)]).toEqual([false, true]);
});

test("five errors without a commit block the job, with the last reason; a commit ends it", () => {
  const backoff = new Backoff();
  for (let shard = 0; shard < 4; shard++) backoff.failed(shard, reason, 0);
  expect(backoff.blocked).toBeNull();
  backoff.succeeded(9);
  for (let shard = 0; shard < 4; shard++) backoff.failed(shard, reason, 0);
  expect(backoff.blocked).toBeNull();
  backoff.failed(4, { code: "STORE_ACCESS_DENIED", message: "403" }, 0);
  expect(backoff.blocked?.code).toBe("STORE_ACCESS_DENIED");
  expect([backoff.mayProbe(999), backoff.mayProbe(1_000)]).toEqual([false, true]);
  backoff.succeeded(0);
  expect(backoff.blocked).toBeNull();
});

import { expect, test } from "vitest";
import { WorkClock } from "../../src/dispatch/clock.ts";

test("time is divided among the shards in hand, and adds up to the time in which there were any", () => {
  let ms = 1_000;
  const clock = new WorkClock(() => ms);
  ms += 5_000;
  const first = clock.take();
  ms += 1_000;
  const second = clock.take();
  ms += 2_000;
  const third = clock.take();
  ms += 3_000;
  first.put();
  const took = [first.seconds];
  ms += 4_000;
  second.put();
  third.put();
  took.push(second.seconds, third.seconds);
  expect(took).toEqual([1 + 1 + 1, 1 + 1 + 2, 1 + 2]);
  ms += 7_000;
  const last = clock.take();
  ms += 500;
  expect(last.seconds).toBe(0.5);
});

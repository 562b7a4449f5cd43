import { connectRedis } from "@capfleet/shared/queues";
import { expect, test } from "vitest";
import { Sandbox } from "../../../test/support/processes.ts";
import { Lease } from "../src/reconcile/lease.ts";

test("one holder at a time, for as long as it lasts or until it is released", async () => {
  const sandbox = await Sandbox.create();
  const redis = connectRedis((await sandbox.redis()).url, "patient");
  const [first, second] = [new Lease(redis, "test"), new Lease(redis, "test")];
  expect([await first.hold(), await second.hold(), await first.hold()]).toEqual([true, false, true]);
  expect([await first.renew(), await second.renew()]).toEqual([true, false]);
  // A lease that is not ours is not ours to release.
  await second.release();
  expect(await second.hold()).toBe(false);
  await first.release();
  expect([await second.hold(), await first.hold()]).toEqual([true, false]);

  // It ends by itself: the holder has died.
  const [key] = await redis.keys("*lease*");
  expect(await redis.pttl(key!)).toBeGreaterThan(5_000);
  await redis.pexpire(key!, 1);
  await expect.poll(() => first.hold()).toBe(true);
  // What the old holder does when it wakes up does not disturb the new one.
  await second.release();
  expect([await second.renew(), await first.renew()]).toEqual([false, true]);
  redis.disconnect();
  await sandbox.cleanUp();
});

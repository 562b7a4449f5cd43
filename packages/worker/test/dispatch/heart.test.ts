import { createLog } from "@capfleet/shared/log";
import { connectRedis, liveWorkers } from "@capfleet/shared/queues";
import { afterEach, expect, test, vi } from "vitest";
import { Sandbox, until } from "../../../../test/support/processes.ts";
import { Heart } from "../../src/dispatch/heart.ts";

let sandbox: Sandbox;
afterEach(async () => {
  vi.useRealTimers();
  await sandbox.cleanUp();
});

test("after half a minute without Redis one beat has waited, and not thirty; who stops is gone at once", async () => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
  sandbox = await Sandbox.create();
  const server = await sandbox.redis();
  const redis = connectRedis(server.url, "patient");
  sandbox.atEnd(async () => redis.disconnect());
  const presence = {
    id: "w",
    host: "h",
    pid: 1,
    version: "0",
    engines: [],
    slots: 1,
    pricePerHour: null,
    inFlight: [],
  };
  const heart = new Heart(redis, () => presence, createLog("test", "silent"));
  await heart.start();
  await server.kill();
  await until("the loss to be seen", () => redis.status !== "ready");
  await vi.advanceTimersByTimeAsync(30_000);
  await server.start();
  await until("a beat", async () => (await liveWorkers(redis)).length === 1);
  expect(await redis.info("commandstats")).toMatch(/^cmdstat_set:calls=1,/m);
  await heart.stop();
  expect(await liveWorkers(redis)).toEqual([]);
});

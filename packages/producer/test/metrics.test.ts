import { readConfig } from "@capfleet/shared/config";
import type { EngineRef } from "@capfleet/shared/contract";
import { beat, connectRedis, engineSet, writeFigures } from "@capfleet/shared/queues";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Sandbox } from "../../../test/support/processes.ts";
import { Metrics } from "../src/api/metrics.ts";

const engine = (digest: string): EngineRef => ({ model: digest, digest, checkpoint: "c", precision: "fp32" });
const [a, b, c] = ["a", "b", "c"].map(engine) as [EngineRef, EngineRef, EngineRef];
let sandbox: Sandbox;
beforeAll(async () => {
  sandbox = await Sandbox.create();
});
afterAll(() => sandbox.cleanUp());

test("a backlog has the workers that run all its engines, and 0 where there are none", async () => {
  const redis = connectRedis((await sandbox.redis()).url, "patient");
  sandbox.atEnd(async () => redis.disconnect());
  const worker = { host: "h", pid: 1, version: "0", slots: 2, pricePerHour: null, inFlight: [] };
  for (const [n, engines] of [[a, b], [a]].entries()) {
    await beat(redis, { ...worker, id: String(n), engines });
  }
  const waiting = { models: [], jobs: 1, records: 10, shards: 1, rows: 0, workerSeconds: 0, load: null, busy: 0 };
  const backlog = [[a], [a, b], [c]].map((engines) => ({ engines: engineSet(engines), ...waiting }));
  await writeFigures(redis, { jobs: {}, rows: { labelled: 0, failed: 0 }, backlog, roundSeconds: 0.1, unread: 0 });
  const text = await new Metrics(redis, readConfig({}).scale).text();
  const found = [...text.matchAll(/^capfleet_backlog_workers\{engines="(.+)"\} (\d+)$/gm)].map(([, ...found]) => found);
  expect(Object.fromEntries(found)).toEqual({ a: "2", "a+b": "1", c: "0" });
});

/**
 * Hours in small: a real producer and worker do job after job, and it is looked at what grows: memory, open handles, Redis. The
 * growth is the slope of a line through the second half, when all has warmed up.
 */
import { mkdir } from "node:fs/promises";
import { loadavg } from "node:os";
import { liveWorkers, readProgress } from "@capfleet/shared/queues";
import { smallJpegs } from "../support/images/index.ts";
import { until } from "../support/processes.ts";
import type { Figure } from "./bench.ts";
import { BenchFleet, pause, residentMb, say, slope } from "./fleet.ts";
import { openHandles, readRedis } from "./meters.ts";

const IMAGES = 1_000;
const SAMPLE_MS = 5_000;

interface Sample {
  minutes: number;
  producerMb: number;
  workerMb: number;
  producerHandles: number;
  workerHandles: number;
  redisKiB: number;
  redisKeys: number;
}

export async function soakFigures({ minutes }: { minutes: number }): Promise<Figure[]> {
  await using fleet = await BenchFleet.start();
  const folder = fleet.sandbox.path("images");
  await mkdir(folder);
  await smallJpegs(folder, IMAGES, 1);
  const producer = fleet.producer();
  fleet.sandbox.worker(fleet.env);
  const { pid } = await until("the worker", async () => (await liveWorkers(fleet.redis))[0]);
  const load = loadavg()[0]!;
  const started = performance.now();
  const since = () => (performance.now() - started) / 60_000;
  const samples: Sample[] = [];
  let jobs = 0;
  let last = 0;
  const sampling = async () => {
    while (since() < minutes) {
      const redis = await readRedis(fleet.redis);
      samples.push({
        minutes: since(),
        producerMb: residentMb(producer.pid),
        workerMb: residentMb(pid),
        producerHandles: openHandles(producer.pid),
        workerHandles: openHandles(pid),
        redisKiB: redis.dataBytes / 1_024,
        redisKeys: redis.keys,
      });
      if (since() - last >= 1) {
        last = since();
        say(JSON.stringify({ jobs, ...samples.at(-1) }));
      }
      await pause(SAMPLE_MS);
    }
  };
  const working = async () => {
    while (since() < minutes) {
      const id = await fleet.submit(`${folder}/`, fleet.sandbox.path(`out-${jobs}`));
      await until(`job ${jobs}`, async () => (await readProgress(fleet.redis, id))?.state === "finished", 600);
      jobs += 1;
    }
  };
  await Promise.all([sampling(), working()]);

  const settled = samples.slice(Math.floor(samples.length / 2));
  const figure = (name: string, unit: string, of: (sample: Sample) => number): Figure[] => [
    { name: `${name}, at the end`, value: of(samples.at(-1)!), unit },
    {
      name: `${name}, growth`,
      value: slope(settled.map((sample) => ({ x: sample.minutes / 60, y: of(sample) }))),
      unit: `${unit} an hour`,
    },
  ];
  return [
    { name: "load of the machine at the start", value: load, unit: "processes" },
    { name: "time", value: minutes, unit: "min" },
    { name: `jobs of ${IMAGES} images`, value: jobs, unit: "jobs" },
    ...figure("producer's memory", "MB", ({ producerMb }) => producerMb),
    ...figure("worker's memory", "MB", ({ workerMb }) => workerMb),
    ...figure("producer's handles", "handles", ({ producerHandles }) => producerHandles),
    ...figure("worker's handles", "handles", ({ workerHandles }) => workerHandles),
    ...figure("data in Redis", "KiB", ({ redisKiB }) => redisKiB),
    ...figure("keys in Redis", "keys", ({ redisKeys }) => redisKeys),
  ];
}

/**
 * Steady throughput of a worker against a bare loop: the same files, the same decode at the same concurrency, the same
 * engine calls on an engine thread, and nothing else. Also the growth of the worker's memory.
 */
import { mkdir, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { readConfig } from "@capfleet/shared/config";
import { taskSpecSchema } from "@capfleet/shared/contract";
import { findLocalModel } from "@capfleet/shared/models";
import { liveWorkers, readProgress } from "@capfleet/shared/queues";
import { ensureEngine } from "@capfleet/worker/blip";
import { decode } from "@capfleet/worker/pixels";
import pLimit from "p-limit";
import { EngineHost } from "../../packages/worker/src/engine/host.ts";
import { smallJpegs } from "../support/images/index.ts";
import { until } from "../support/processes.ts";
import type { Figure } from "./bench.ts";
import { BenchFleet, pause, residentMb, say, slope } from "./fleet.ts";

const IMAGES = 20_000;
/** Left out at both ends: start-up, and the last shards, when there is less and less to do at once. */
const WARM_UP_SHARE = 0.2;
const BARE_SECONDS = 25;
const BATCHES_AHEAD = 4;
const TASK = taskSpecSchema.parse({ name: "caption", decoding: {} });

export async function pipelineFigures(): Promise<Figure[]> {
  await using fleet = await BenchFleet.start();
  const folder = fleet.sandbox.path("images");
  await mkdir(folder);
  say(`drawing ${IMAGES} small JPEGs`);
  const names = await smallJpegs(folder, IMAGES, 1);
  const files = names.map((name) => join(folder, name));
  say(`bare loop, ${BARE_SECONDS} s`);
  const before = await bareLoop(files);
  say("a worker");
  const worker = await workerRun(fleet, folder);
  say(`bare loop again, ${BARE_SECONDS} s`);
  const after = await bareLoop(files);
  return [
    { name: "bare loop, before", value: before, unit: "images/s" },
    { name: "bare loop, after", value: after, unit: "images/s" },
    { name: "worker, steady", value: worker.rate, unit: "images/s" },
    { name: "worker, steady: measured over", value: worker.seconds, unit: "s" },
    { name: "worker against the better bare loop", value: worker.rate / Math.max(before, after), unit: "ratio" },
    { name: "worker's memory after warm-up", value: worker.residentMb, unit: "MB" },
    { name: "growth of the worker's memory after warm-up", value: worker.growthMb, unit: "MB per 10,000 images" },
  ];
}

async function bareLoop(files: string[]): Promise<number> {
  const config = readConfig();
  const { ref, folder } = await findLocalModel("demo-caption", "int8", config);
  const compiled = join(config.cache, "engines", ref.digest);
  await ensureEngine(folder!, ref, compiled);
  const threads = availableParallelism();
  const host = await EngineHost.start({ folders: [compiled], threads, device: "cpu" });
  const { image, batch } = host.infos[0]!;
  const bytes = image.width * image.height * 3;
  const decoding = pLimit(availableParallelism());
  const decodeOne = (file: string) =>
    decoding(async () =>
      decode(await readFile(file), image, { maxPixels: config.maxImagePixels, maxSeconds: config.maxDecodeSeconds }),
    );

  // Decode runs ahead by as many batches as in the worker, and two batches are with the engine, so that it never waits.
  let next = 0;
  const ahead: Promise<Uint8Array>[] = [];
  const take = (): Promise<Uint8Array> => {
    while (ahead.length < BATCHES_AHEAD * batch) ahead.push(decodeOne(files[next++ % files.length]!));
    return ahead.shift()!;
  };
  const items = Array.from({ length: batch }, (_, i) => ({ id: String(i), texts: [] }));
  let done = 0;
  const started = performance.now();
  const lane = async () => {
    const slab = new SharedArrayBuffer(batch * bytes);
    while (performance.now() - started < BARE_SECONDS * 1_000) {
      const pixels = await Promise.all(Array.from({ length: batch }, take));
      for (const [i, some] of pixels.entries()) new Uint8Array(slab).set(some, i * bytes);
      await host.label({ engine: 0, slab, first: 0, items, task: TASK, urgent: false });
      done += batch;
    }
  };
  await Promise.all([lane(), lane()]);
  await Promise.allSettled(ahead);
  const rate = done / ((performance.now() - started) / 1_000);
  await host.close();
  return rate;
}

async function workerRun(fleet: BenchFleet, folder: string) {
  const id = await fleet.submit(`${folder}/`, fleet.sandbox.path("out"));
  const producer = fleet.producer();
  const worker = fleet.sandbox.worker(fleet.env, "--threads", String(availableParallelism()));
  const pid = (await until("the worker", async () => (await liveWorkers(fleet.redis))[0])).pid;
  const samples: { at: number; done: number; mb: number }[] = [];
  for (;;) {
    await pause(250);
    const progress = await readProgress(fleet.redis, id);
    if (!progress || (progress.state !== "running" && progress.state !== "planning" && progress.state !== "finished")) {
      if (progress) throw new Error(`the job is ${progress.state}`);
      continue;
    }
    samples.push({ at: performance.now() / 1_000, done: progress.done, mb: residentMb(pid) });
    if (progress.done >= IMAGES * (1 - WARM_UP_SHARE / 4)) break;
  }
  // The bare loop that follows has the machine to itself.
  for (const process of [worker, producer]) await process.kill("SIGKILL");
  const steady = samples.filter(({ done }) => done >= IMAGES * WARM_UP_SHARE);
  const [first, last] = [steady[0]!, steady.at(-1)!];
  return {
    rate: (last.done - first.done) / (last.at - first.at),
    seconds: last.at - first.at,
    residentMb: last.mb,
    growthMb: slope(steady.map(({ done, mb }) => ({ x: done / 10_000, y: mb }))),
  };
}

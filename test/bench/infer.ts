/**
 * Interactive requests: how long one takes from the asking process and back, against the bare decode and engine call on the
 * same image; the same while a bulk job keeps the worker busy; and what the bulk job loses meanwhile.
 */
import { mkdir, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { readConfig } from "@capfleet/shared/config";
import { jobTaskSpecSchema, type TaskSpec } from "@capfleet/shared/contract";
import { findLocalModel, type Model } from "@capfleet/shared/models";
import { liveWorkers, readProgress } from "@capfleet/shared/queues";
import { ensureEngine } from "@capfleet/worker/blip";
import { decode } from "@capfleet/worker/pixels";
import { InferClient } from "../../packages/producer/src/infer/client.ts";
import { inferRequestOf } from "../../packages/producer/src/infer/request.ts";
import { EngineHost } from "../../packages/worker/src/engine/host.ts";
import { smallJpegs } from "../support/images/index.ts";
import { until } from "../support/processes.ts";
import type { Figure } from "./bench.ts";
import { BenchFleet, pause, say } from "./fleet.ts";

const IMAGES = 20_000;
const TRIES = 200;
const WARM_UP = 20;
/** How long each part beside the bulk job is measured. */
const SECONDS = 12;
/** Between two requests of somebody who looks at pictures one by one, and how many ask at once under load. */
const PAUSE_MS = 100;
const ASKERS = 16;
const TASK = jobTaskSpecSchema.parse({ name: "caption", decoding: {} }) as TaskSpec;

export async function inferFigures(): Promise<Figure[]> {
  await using fleet = await BenchFleet.start();
  const folder = fleet.sandbox.path("images");
  await mkdir(folder);
  say(`drawing ${IMAGES} small JPEGs`);
  const [name] = await smallJpegs(folder, IMAGES, 1);
  const image = await readFile(join(folder, name!));
  const model = await findLocalModel("demo-caption", "int8", readConfig());
  say("the bare call");
  const bare = await bareCalls(image, model);

  fleet.sandbox.worker(fleet.env, "--threads", String(availableParallelism()));
  await until("the worker", async () => (await liveWorkers(fleet.redis)).length > 0);
  const client = new InferClient(fleet.redis);
  const request = inferRequestOf(TASK, [model], { id: "1", image: null }, true);
  const ask = () => timed(() => client.infer(request, image));
  say("requests to an idle worker");
  const idle = await repeated(ask);

  const id = await fleet.submit(`${folder}/`, fleet.sandbox.path("out"));
  fleet.producer();
  const bulk = async (meanwhile: (over: () => boolean) => Promise<unknown>) => {
    const done = async () => (await readProgress(fleet.redis, id))?.done ?? 0;
    const started = performance.now();
    const before = await done();
    await meanwhile(() => performance.now() - started > SECONDS * 1_000);
    return ((await done()) - before) / ((performance.now() - started) / 1_000);
  };
  await until("the job to be under way", async () => ((await readProgress(fleet.redis, id))?.done ?? 0) > 1_000);
  const nothing = async (over: () => boolean) => {
    while (!over()) await pause(PAUSE_MS);
  };
  say("the job alone");
  const first = await bulk(nothing);
  say("a request now and then beside it");
  const busy: number[] = [];
  const withOne = await bulk(async (over) => {
    for (; !over(); await pause(PAUSE_MS)) busy.push(await ask());
  });
  say(`${ASKERS} askers without a pause beside it`);
  const crowded: number[] = [];
  const withMany = await bulk((over) => {
    const asker = async () => {
      while (!over()) crowded.push(await ask());
    };
    return Promise.all(Array.from({ length: ASKERS }, asker));
  });
  say("the job alone again");
  const last = await bulk(nothing);
  await client.close();
  const alone = (first + last) / 2;
  return [
    ...latencies("bare decode and engine call", bare),
    ...latencies("request, idle worker", idle),
    ...latencies("request beside a bulk job", busy),
    ...latencies(`request of ${ASKERS} at once beside a bulk job`, crowded),
    { name: `answers to ${ASKERS} at once`, value: crowded.length / SECONDS, unit: "requests/s" },
    { name: "bulk job alone, before", value: first, unit: "rows/s" },
    { name: "bulk job alone, after", value: last, unit: "rows/s" },
    { name: "bulk job beside a request now and then", value: withOne, unit: "rows/s" },
    { name: "of what it does alone", value: withOne / alone, unit: "ratio" },
    { name: `bulk job beside ${ASKERS} at once`, value: withMany, unit: "rows/s" },
    { name: "of what it does alone", value: withMany / alone, unit: "ratio" },
  ];
}

async function bareCalls(image: Buffer, { ref, folder }: Model): Promise<number[]> {
  const config = readConfig();
  const compiled = join(config.cache, "engines", ref.digest);
  await ensureEngine(folder!, ref, compiled);
  const host = await EngineHost.start({ folders: [compiled], threads: availableParallelism(), device: "cpu" });
  const size = host.infos[0]!.image;
  const slab = new SharedArrayBuffer(size.width * size.height * 3);
  const items = [{ id: "1", texts: [] }];
  const times = await repeated(() =>
    timed(async () => {
      new Uint8Array(slab).set(
        await decode(image, size, { maxPixels: config.maxImagePixels, maxSeconds: config.maxDecodeSeconds }),
      );
      await host.label({ engine: 0, slab, first: 0, items, task: TASK, urgent: true });
    }),
  );
  await host.close();
  return times;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

/** One after the other; the first ones, which load graphs, are left out. */
async function repeated(once: () => Promise<number>): Promise<number[]> {
  const times: number[] = [];
  for (let n = 0; n < WARM_UP + TRIES; n++) times.push(await once());
  return times.slice(WARM_UP);
}

function latencies(name: string, times: number[]): Figure[] {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))]!;
  return [
    { name: `${name}: median`, value: at(0.5), unit: "ms" },
    { name: `${name}: 95 % within`, value: at(0.95), unit: "ms" },
  ];
}

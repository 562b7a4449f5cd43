/**
 * Cleaning in one job (a captioner and a filter, the image fetched and decoded once) against captioning and matching in two:
 * the same worker, the same images, a web text each. With the demo checkpoints, whose pixels cost more than their models,
 * and with two of BLIP-base's geometry and random weights, where it is the other way round.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { liveWorkers, readProgress } from "@capfleet/shared/queues";
import { smallJpegs } from "../support/images/index.ts";
import { until } from "../support/processes.ts";
import type { Figure } from "./bench.ts";
import { BLIP_BASE, blipCheckpoint } from "./checkpoints/blip.ts";
import { BenchFleet, pause, say } from "./fleet.ts";

interface Setting {
  name: string;
  captioner: string;
  filter: string;
  images: number;
}

/** Start-up and the last shards, when there is less and less to do at once, are left out. */
const FROM = 0.15;
const TO = 0.9;
const SAMPLING = ["--top-p", "0.9"];

export async function capfiltFigures(): Promise<Figure[]> {
  await using fleet = await BenchFleet.start();
  const [captioner, filter] = [fleet.sandbox.path("captioner"), fleet.sandbox.path("filter")];
  say("writing two checkpoints of BLIP-base's geometry");
  await blipCheckpoint(captioner, "BlipForConditionalGeneration", BLIP_BASE);
  await blipCheckpoint(filter, "BlipForImageTextRetrieval", BLIP_BASE);
  const settings: Setting[] = [
    { name: "demo", captioner: "demo-caption", filter: "demo-itm", images: 4_000 },
    { name: "BLIP-base", captioner, filter, images: 64 },
  ];
  const producer = fleet.producer();
  const figures: Figure[] = [];
  for (const setting of settings) figures.push(...(await measure(fleet, setting)));
  await producer.kill("SIGKILL");
  return figures;
}

async function measure(fleet: BenchFleet, { name, captioner, filter, images }: Setting): Promise<Figure[]> {
  const folder = fleet.sandbox.path(`images-${name}`);
  await mkdir(folder);
  say(`${name}: drawing ${images} small JPEGs`);
  const names = await smallJpegs(folder, images, 1);
  const manifest = async (file: string, texts: string | string[]) => {
    const path = fleet.sandbox.path(`${file}-${name}.jsonl`);
    await writeFile(
      path,
      names.map((image) => `${JSON.stringify({ image: `${folder}/${image}`, alt: texts })}\n`).join(""),
    );
    return path;
  };
  const web = await manifest("web", "a red square on a table");
  // What the filter reads in the one job: the web's text and the caption that was made.
  const both = await manifest("both", ["a red square on a table", "a blue circle beside a tree"]);
  const settings = ["--models", `${captioner},${filter}`, "--threads", String(availableParallelism())];
  const worker = fleet.sandbox.worker(fleet.env, ...settings);
  await until("the worker", async () => (await liveWorkers(fleet.redis))[0], 300);

  const run = async (job: string, images: number, ...args: string[]) => {
    say(`${name}: ${job}`);
    return rateOf(fleet, await fleet.submitTask(job, args, fleet.sandbox.path(`${name}-${job}`)), images);
  };
  const models = ["--captioner", captioner, "--filter", filter];
  const one = await run("capfilt", images, web, "--text-column", "alt", ...models, ...SAMPLING);
  const caption = await run("caption", images, web, "--model", captioner, ...SAMPLING);
  const itm = await run("itm", images, both, "--text-column", "alt", "--model", filter);
  await worker.kill("SIGTERM");
  const two = 1 / (1 / caption + 1 / itm);
  say(`${name}: ${one.toFixed(2)} against ${two.toFixed(2)} images/s`);
  return [
    { name: `${name}: capfilt, one job`, value: one, unit: "images/s" },
    { name: `${name}: caption, then itm`, value: two, unit: "images/s" },
    { name: `${name}: one job against two`, value: one / two, unit: "ratio" },
  ];
}

async function rateOf(fleet: BenchFleet, id: string, images: number): Promise<number> {
  const samples: { at: number; done: number }[] = [];
  for (;;) {
    await pause(100);
    const progress = await readProgress(fleet.redis, id);
    if (!progress) continue;
    if (["failed", "blocked", "cancelled"].includes(progress.state)) throw new Error(`the job is ${progress.state}`);
    samples.push({ at: performance.now() / 1_000, done: progress.done });
    if (progress.state === "finished") break;
  }
  const steady = samples.filter(({ done }) => done >= images * FROM && done <= images * TO);
  const [first, last] = [steady[0]!, steady.at(-1)!];
  return (last.done - first.done) / (last.at - first.at);
}

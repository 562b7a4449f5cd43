/** Planning a manifest of a million lines, and what Redis holds meanwhile, against one of ten thousand. */

import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { layout, planSchema } from "@capfleet/shared/contract";
import { storesFromEnv } from "@capfleet/shared/storage";
import type { Figure } from "./bench.ts";
import { BenchFleet, pause, residentMb, say } from "./fleet.ts";

/** The last is there to show that memory has stopped growing by then. */
const SIZES = [10_000, 1_000_000, 4_000_000];

export async function planFigures(): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const lines of SIZES) {
    say(`planning ${lines.toLocaleString("en-US")} lines`);
    figures.push(...(await planOne(lines)));
  }
  return figures;
}

async function planOne(lines: number): Promise<Figure[]> {
  await using fleet = await BenchFleet.start();
  const manifest = fleet.sandbox.path("list.jsonl");
  await writeManifest(manifest, lines);
  await fleet.submit(manifest, fleet.sandbox.path("out"));
  const producer = fleet.producer();
  const out = storesFromEnv({}).at(`${fleet.sandbox.path("out")}/`);
  let keys = 0;
  let bytes = 0;
  let memory = 0;
  // No worker runs: the window of shards in Redis is full all the time.
  do {
    await pause(100);
    keys = Math.max(keys, await fleet.redis.dbsize());
    const info = await fleet.redis.info("memory");
    bytes = Math.max(bytes, Number(/used_memory_dataset:(\d+)/.exec(info)![1]));
    memory = Math.max(memory, residentMb(producer.pid));
  } while (!(await out.stat(layout.plan)));
  await pause(1_500);
  keys = Math.max(keys, await fleet.redis.dbsize());
  const plan = planSchema.parse(JSON.parse((await out.read(layout.plan)).bytes.toString()));
  const of = `${lines.toLocaleString("en-US")} lines`;
  return [
    { name: `planning rate, ${of}`, value: plan.records / plan.seconds, unit: "records/s" },
    { name: `producer's peak memory, ${of}`, value: memory, unit: "MB" },
    { name: `keys in Redis, ${of}`, value: keys, unit: "keys" },
    { name: `data in Redis, ${of}`, value: bytes / 1024, unit: "KiB" },
  ];
}

async function writeManifest(path: string, lines: number): Promise<void> {
  const file = createWriteStream(path);
  for (let n = 0; n < lines; n++) {
    const line = `${JSON.stringify({ id: `photo-${n}`, image: `photos/2026/${n % 1_000}/photo-${n}.jpg` })}\n`;
    if (!file.write(line)) await once(file, "drain");
  }
  file.end();
  await once(file, "close");
}

/** What the benchmarks of engines have in common. Each measurement is a process of its own. */
import { execFile } from "node:child_process";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Precision } from "@capfleet/shared/contract";
import type { Figure } from "./bench.ts";
import type { Vision } from "./checkpoints/write.ts";
import type { Measurement, Request } from "./engine-process.ts";

const run = promisify(execFile);
const here = (...names: string[]) => join(import.meta.dirname, ...names);

export const say = (text: string) => process.stderr.write(`${text}\n`);

export async function measure(request: Request): Promise<Measurement> {
  const { stdout } = await run(process.execPath, [here("engine-process.ts"), JSON.stringify(request)]);
  const measured = JSON.parse(stdout) as Measurement;
  const { task, engine, beams, texts } = request;
  say(`${engine.split("/").at(-1)} ${task} beams ${beams} texts ${texts}: ${measured.seconds.toFixed(3)} s a batch`);
  return measured;
}

/** Compiles in a process of its own: seconds, and the memory that it took at most. */
export async function compileApart(checkpoint: string, precision: Precision, out: string): Promise<Figure[]> {
  say(`compiling ${precision} …`);
  const { stdout } = await run(process.execPath, [here("compile-process.ts"), checkpoint, precision, out]);
  const { seconds, peakMb } = JSON.parse(stdout) as { seconds: number; peakMb: number };
  return [
    { name: `compile.${precision}`, value: seconds, unit: "s" },
    { name: `compile.${precision}.peak`, value: peakMb, unit: "MB of memory at most" },
  ];
}

/** transformers on this machine, where CAPFLEET_REFERENCE_PYTHON names a Python that has it. */
export async function reference(script: string, ...options: string[]): Promise<Figure[]> {
  const python = process.env.CAPFLEET_REFERENCE_PYTHON;
  if (!python) {
    say("CAPFLEET_REFERENCE_PYTHON is not set: transformers is left out");
    return [];
  }
  say("transformers …");
  const env = { ...process.env, OMP_NUM_THREADS: String(availableParallelism()) };
  const { stdout } = await run(python, [here("reference", script), ...options], { env });
  const lines = stdout.trim().split("\n");
  return lines.map((line) => JSON.parse(line) as Figure);
}

/** Multiplications and additions of one image in the vision transformer: linear layers, attention, patches. */
export function visionOperations({ image, patch, width, hidden, layers }: Vision): number {
  const patches = Math.floor(image / patch) ** 2;
  const positions = patches + 1;
  const layer = 2 * positions * (4 * width ** 2 + 2 * width * hidden) + 4 * positions ** 2 * width;
  return layers * layer + 2 * patches * width * 3 * patch ** 2;
}

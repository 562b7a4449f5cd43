/** The golden files that are here, and engines of the checkpoints that they are of. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import { BUNDLED_MODELS } from "@capfleet/shared/config";
import { type Precision, type Task, type TaskSpec, taskSpecSchema } from "@capfleet/shared/contract";
import { compileEngine, loadEngine } from "@capfleet/worker/blip";
import type { Engine, Generated, Output } from "@capfleet/worker/engine";
import { expect } from "vitest";
import { Folder, readPixels, ref } from "../../packages/worker/test/blip/checkpoints.ts";

/** What transformers answers for one image. Fields that a task does not have are absent, as in `Output`. */
export interface GoldenRow {
  id: string;
  task: TaskSpec;
  texts: string[];
  captions?: Generated[];
  answers?: Generated[];
  /** Of the captions together, or of each answer: by how much the closest decision was decided. */
  margins?: number[];
  scores?: number[];
  embeddings?: number[][];
  cut?: number[];
}

export interface Case {
  name: string;
  /** Folder of the checkpoint. */
  checkpoint: string;
  /** Folder of the golden files. */
  folder: string;
  rows: GoldenRow[];
}

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Cases whose golden files have rows of one of the tasks, with these rows only. */
export function casesOf(...tasks: Task[]): Case[] {
  const random = readdirSync(here("cases")).map((name) => ({
    name,
    checkpoint: here(`cases/${name}`),
    folder: here(`cases/${name}`),
  }));
  const demo = readdirSync(here("demo")).map((name) => ({
    name,
    checkpoint: join(BUNDLED_MODELS, name),
    folder: here(`demo/${name}`),
  }));
  return [...random, ...demo]
    .map((one) => ({ ...one, rows: readGolden(one.folder).filter(({ task }) => tasks.includes(task.name)) }))
    .filter(({ rows }) => rows.length > 0);
}

function readGolden(folder: string): GoldenRow[] {
  return readLines<GoldenRow>(join(folder, "golden.jsonl")).map((row) => ({
    ...row,
    task: taskSpecSchema.parse(row.task),
  }));
}

export const readLines = <T>(file: string): T[] =>
  readFileSync(file, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as T);

/** Rows by what was asked: a name for each task with its options, and its rows. */
export function byTask(rows: readonly GoldenRow[]): [name: string, rows: GoldenRow[]][] {
  return [...Map.groupBy(rows, ({ task }) => nameOf(task))];
}

function nameOf(task: TaskSpec): string {
  const options: Record<string, unknown> = {};
  if ("decoding" in task) {
    const { sampling: _, ...decoding } = task.decoding;
    Object.assign(options, decoding);
  }
  if (task.name === "caption") Object.assign(options, { captions: task.captions, prompt: task.prompt });
  if (task.name === "vqa" && task.template) options.template = JSON.stringify(task.template);
  if (task.name === "vqa" && task.answers) options.closed = task.answers.length;
  if (task.name === "embed") options.of = task.texts ? "texts" : "images";
  return [task.name, ...Object.entries(options).map(([name, value]) => `${name}=${value}`)].join(" ");
}

/** An engine made of a case's checkpoint. */
export class CompiledEngine {
  readonly engine: Engine;
  readonly #case: Case;
  readonly #folder: Folder;

  private constructor(engine: Engine, of: Case, folder: Folder) {
    this.engine = engine;
    this.#case = of;
    this.#folder = folder;
  }

  static async of(one: Case, precision: Precision = "fp32"): Promise<CompiledEngine> {
    const folder = await Folder.make();
    await compileEngine(one.checkpoint, { ...ref, precision }, folder.at("engine"));
    // One thread: test files run side by side, and threads that wait by spinning would keep each other from the cores.
    return new CompiledEngine(await loadEngine(folder.at("engine"), { threads: 1, device: "cpu" }), one, folder);
  }

  /** What the engine answers to rows of one task, in batches. */
  async label(rows: readonly GoldenRow[], batch: number): Promise<Output[]> {
    const outputs: Output[] = [];
    for (let i = 0; i < rows.length; i += batch) {
      const some = rows.slice(i, i + batch);
      const pixels = await readPixels(
        this.#case.checkpoint,
        some.map(({ id }) => id),
      );
      outputs.push(...(await this.engine.label(some[0]!.task, some, pixels)));
    }
    return outputs;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.engine.release();
    await this.#folder[Symbol.asyncDispose]();
  }
}

/**
 * Both sides compute in float32, with sums in different orders. The largest differences met are 6e-6 in scores, 1.6e-5 in
 * ranks (with length penalty 0: sums of 20 log-probabilities, around -60) and 6e-7 in probabilities and vectors; another
 * processor may round otherwise, but a wrong epsilon, scale or GELU shows above 1e-4.
 */
export const TOLERANCE = 1e-4;
/** A choice that transformers itself made by less than this may come out either way. */
const NEAR_TIE = 1e-4;
/** Images of different rows stand in a batch with each other, and the last batch has fewer. */
export const BATCH = 5;

/** Texts that came of the same decisions, of which the closest was decided by `margin`. */
export function expectSameTexts(texts: readonly Generated[], golden: readonly Generated[], margin: number): void {
  const says = (all: readonly Generated[]) => all.map(({ ids, text }) => ({ ids, text }));
  if (margin < NEAR_TIE && !isDeepStrictEqual(says(texts), says(golden))) return;
  expect(says(texts)).toEqual(says(golden));
  for (const field of ["score", "rank"] as const) {
    const [ours, theirs] = [texts, golden].map((all) => all.map((text) => text[field])) as [number[], number[]];
    expect(difference(ours, theirs)).toBeLessThan(TOLERANCE);
  }
}

/** The largest difference between numbers that stand in the same places. */
export function difference(a: readonly number[], b: readonly number[]): number {
  expect(a.length).toBe(b.length);
  return Math.max(0, ...a.map((x, i) => Math.abs(x - b[i]!)));
}

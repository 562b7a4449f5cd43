/** `capfleet-worker models`: checkpoints and compiled engines, by hand. */
import { availableParallelism } from "node:os";
import { numberFrom } from "@capfleet/shared/command-line";
import { type Config, readConfig } from "@capfleet/shared/config";
import { CapfleetError, PRECISIONS, type Precision, TASKS, type Task } from "@capfleet/shared/contract";
import { choosePrecision, fetchModel, findLocalModel, type Model } from "@capfleet/shared/models";
import { normalizeUri, type Stores, storesFromEnv } from "@capfleet/shared/storage";
import { Command, Option } from "commander";
import { loadEngine } from "../blip/index.ts";
import { benchModel } from "./bench.ts";
import { bundledGolden, readGolden } from "./golden.ts";
import { cachedModels } from "./list.ts";
import { enginesFolder, prepareEngine } from "./prepare.ts";
import { Progress } from "./progress.ts";
import { publishEngine, pullEngine } from "./published.ts";
import { compare, TOLERANCES, verdict } from "./verify.ts";

interface Surroundings {
  config: Config;
  stores: Stores;
  progress: Progress;
}
interface EngineOptions {
  precision?: Precision;
  device: string;
}
interface BenchOptions extends EngineOptions {
  task?: Task;
}
interface VerifyOptions extends EngineOptions {
  golden?: string;
  images?: string;
  tolerance?: number;
}

export const PRECISION_HELP =
  "how it computes; int8, int4: on a CPU; int4: BLIP-2 with OPT (default: fp16 on cuda, int8 on cpu)";
const SOURCE = "bundled name, folder, s3://bucket/prefix/, or hub id (owner/name, owner/name@revision)";
function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

export function modelsCommand(): Command {
  const models = new Command("models")
    .description("Download, compile, list, check, measure and publish models.")
    .action(() => {
      throw new CapfleetError("USAGE", "models: what about them? pull, compile, list, verify, bench or publish");
    });
  models
    .command("pull")
    .description("Download a checkpoint, or a published engine, into the cache, and print its folder.")
    .argument("<source>", `${SOURCE}, or s3://…/<engine digest>/ of a published engine`)
    .addHelpText("after", examples("pull Salesforce/blip-image-captioning-base", "pull s3://models/blip-base/"))
    .action((source: string) => within((around) => pull(source, around)));
  onEngine(models, "compile", "Compile a model into the cache of engines.")
    .addHelpText("after", examples("compile ./blip-image-captioning-base --precision int8"))
    .action((source: string, options: EngineOptions) => within((around) => compile(source, options, around)));
  models
    .command("list")
    .description("Show the cache: checkpoints and engines.")
    .addHelpText("after", examples("list"))
    .action(() => within(list));
  onEngine(models, "verify", "Compare an engine's answers with a golden file's.")
    .option("--golden <file>", "JSON lines of images and answers (bundled models have theirs); see docs/models.md")
    .option("--images <folder>", "what the file's images are relative to (default: the file's folder)")
    .option("--tolerance <n>", "the largest difference of a score (default: by precision)", numberFrom(0, 1_000))
    .addHelpText("after", examples("verify demo-caption", "verify ./blip-vqa-base --precision int8 --golden vqa.jsonl"))
    .action((source: string, options: VerifyOptions) => within((around) => verify(source, options, around)));
  onEngine(models, "bench", "Measure an engine on this machine: images per second by threads and images at a time.")
    .addOption(new Option("--task <task>", "default: the model's first").choices([...TASKS]))
    .addHelpText("after", examples("bench demo-vqa --precision fp32", "bench Salesforce/blip2-opt-2.7b --task vqa"))
    .action((source: string, options: BenchOptions) => within((around) => bench(source, options, around)));
  onEngine(models, "publish", "Upload a compiled engine, for workers with CAPFLEET_ENGINES set to the same place.")
    .argument("<to>", "s3://bucket/prefix/, or a folder")
    .addHelpText("after", examples("publish ./blip-image-captioning-base s3://models/engines/ --precision fp16"))
    .action((source: string, to: string, options: EngineOptions) =>
      within((around) => publish(source, to, options, around)),
    );
  return models;
}

async function pull(source: string, { config, stores, progress }: Surroundings): Promise<void> {
  const published = publishedEngine(source);
  if (published !== null) {
    const folder = `${enginesFolder(config)}/${published.digest}`;
    const ref = await pullEngine(published.digest, stores.at(published.engines), folder, progress);
    if (ref) {
      progress.end();
      return print(folder);
    }
  }
  const { folder } = await fetchModel(source, config, { ...progress, stores });
  progress.end();
  print(folder);
}

async function compile(source: string, options: EngineOptions, around: Surroundings): Promise<void> {
  const { model, started, prepared } = await prepare(source, options, around);
  const engine = (await cachedModels(around.config)).find(({ folder }) => folder === prepared.folder)!;
  print(`engine     ${model.ref.digest} (${model.ref.model}, ${model.ref.precision}; ${prepared.how})`);
  print(`folder     ${prepared.folder}`);
  print(`size       ${engine.bytes} bytes`);
  print(`seconds    ${((performance.now() - started) / 1_000).toFixed(1)}`);
  // Of the whole process, in KiB (Node gives it so on every system).
  print(`memory     ${process.resourceUsage().maxRSS * 1_024} bytes at most`);
}

async function list({ config }: Surroundings): Promise<void> {
  const found = await cachedModels(config);
  if (found.length === 0) process.stderr.write(`nothing in ${config.cache}\n`);
  for (const { kind, name, folder, bytes, precision, tasks, complete } of found) {
    const what = [
      kind,
      name,
      precision ?? "-",
      tasks.join(",") || "-",
      `${bytes} bytes`,
      complete ? "complete" : "incomplete",
    ];
    print(`${what.join("  ")}  ${folder}`);
  }
}

async function verify(source: string, options: VerifyOptions, around: Surroundings): Promise<void> {
  const { golden, images } = options;
  const expected = golden === undefined ? await bundledGolden(source) : await readGolden(golden, images);
  if (expected === null) {
    throw new CapfleetError("INVALID_OPTION", `${source} needs --golden: only bundled models have known answers`);
  }
  const tasks = expected.map(({ task }) => task.name);
  const { model, prepared } = await prepare(source, options, around, tasks);
  const engine = await loadEngine(prepared.folder, { threads: availableParallelism(), device: options.device });
  const found = await compare(engine, expected);
  await engine.release();
  for (const { differences } of found) for (const line of differences) print(`differs: ${line}`);
  for (const { task, rows, texts, same, scores, largest, mean } of found) {
    const inTexts = texts > 0 ? [`${same} of ${texts} texts agree`] : [];
    const inScores =
      scores > 0 ? [`scores differ by ${largest.toExponential(1)} at most, ${mean.toExponential(1)} on average`] : [];
    print(`${task}  ${rows} rows  ${[...inTexts, ...inScores].join("; ")}`);
  }
  const { score, texts } = TOLERANCES[model.ref.precision];
  const wrong = verdict(found, { score: options.tolerance ?? score, texts });
  if (wrong !== null)
    throw new CapfleetError("VERIFY_FAILED", `${model.ref.model} as ${model.ref.precision}: ${wrong}`);
}

async function bench(source: string, options: BenchOptions, around: Surroundings): Promise<void> {
  const { model, prepared } = await prepare(source, options, around, options.task && [options.task]);
  const { ref, tasks } = model;
  const task = options.task ?? tasks[0]!;
  print(`${ref.model}  ${ref.precision}  ${options.device}  ${task}`);
  print("threads  images at a time  images/s  resident MB");
  for await (const row of benchModel(prepared.folder, options.device, task)) {
    const { threads, batch, imagesPerSecond, residentMb } = row;
    const columns = [String(threads), String(batch), imagesPerSecond.toPrecision(3), residentMb.toFixed(0)];
    print(columns.map((column, i) => column.padStart([7, 16, 8, 11][i]!)).join("  "));
  }
}

async function publish(source: string, to: string, options: EngineOptions, around: Surroundings): Promise<void> {
  const { model, prepared } = await prepare(source, options, around);
  const engines = around.stores.at(to);
  const isNew = await publishEngine(prepared.folder, model.ref, engines, around.progress);
  around.progress.end();
  if (!isNew) process.stderr.write("it was there already\n");
  print(engines.uriOf(`${model.ref.digest}/`));
}

/** `tasks`: what the engine will be asked for. Throws TASK_UNSUPPORTED before anything is compiled in vain. */
async function prepare(
  source: string,
  { precision, device }: EngineOptions,
  { config, stores, progress }: Surroundings,
  tasks: readonly Task[] = [],
) {
  const fetching = { ...progress, stores };
  const model: Model = await findLocalModel(source, choosePrecision(device, precision), config, fetching);
  const strange = tasks.find((task) => !model.tasks.includes(task));
  if (strange) throw new CapfleetError("TASK_UNSUPPORTED", `${model.ref.model} can't do "${strange}"`);
  const started = performance.now();
  const prepared = await prepareEngine(model, config, stores, progress);
  progress.end();
  return { model, started, prepared };
}

function onEngine(models: Command, name: string, description: string): Command {
  return models
    .command(name)
    .description(description)
    .argument("<source>", SOURCE)
    .addOption(new Option("--precision <precision>", PRECISION_HELP).choices([...PRECISIONS]))
    .option("--device <device>", "what it is for: cpu, cuda or cuda:N", "cpu");
}

/** `s3://bucket/engines/0123456789abcdef/`: the place of a published engine, if it is one. */
function publishedEngine(source: string): { engines: string; digest: string } | null {
  if (!/^(s3|file):/i.test(source)) return null;
  const [, engines, digest] = /^(.*\/)([0-9a-f]{16})\/?$/.exec(normalizeUri(source)) ?? [];
  return digest === undefined ? null : { engines: engines!, digest };
}

async function within(act: (around: Surroundings) => Promise<void>): Promise<void> {
  const stores = storesFromEnv();
  const progress = new Progress();
  try {
    await act({ config: readConfig(), stores, progress });
  } finally {
    progress.end();
    stores.close();
  }
}

const examples = (...lines: string[]) =>
  `\nExamples:\n${lines.map((line) => `  capfleet-worker models ${line}`).join("\n")}`;

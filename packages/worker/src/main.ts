/** `capfleet-worker`: the command line of the worker process. */
import { availableParallelism } from "node:os";
import { runToEnd, wholeNumber } from "@capfleet/shared/command-line";
import { CAPFLEET_VERSION, CapfleetError, PRECISIONS, type Precision } from "@capfleet/shared/contract";
import { Command, Option } from "commander";
import { modelsCommand, PRECISION_HELP } from "./models/command.ts";
import { runWorker } from "./worker.ts";

interface RunOptions {
  models?: string[];
  precision?: Precision;
  device: string;
  slots: number;
  threads: number;
}

const stop = new AbortController();

const program = new Command("capfleet-worker")
  .description("Runs models on the shards that a capfleet producer hands out.")
  .version(CAPFLEET_VERSION)
  .option("--models <source,…>", "what to run: bundled names, folders, s3:// prefixes or hub ids", (text) =>
    text.split(","),
  )
  .addOption(new Option("--precision <precision>", PRECISION_HELP).choices([...PRECISIONS]))
  .option("--device <device>", "where to run: cpu, cuda or cuda:N", "cpu")
  .option("--slots <n>", "shards in work at once", wholeNumber(64), 2)
  .option("--threads <n>", "threads for inference", wholeNumber(256), availableParallelism())
  .addHelpText(
    "after",
    `
Needs CAPFLEET_REDIS_URL, and CAPFLEET_STATE where it is not this machine's default.
SIGTERM: takes no more shards, finishes what it can within CAPFLEET_GRACE_SECONDS (25), gives the rest back, exits 0.

Examples:
  CAPFLEET_REDIS_URL=redis://localhost:6379 capfleet-worker --models demo-caption
  capfleet-worker --models Salesforce/blip-vqa-base,./blip-image-captioning-base --slots 2
  capfleet-worker models pull Salesforce/blip-vqa-base`,
  )
  .action(async ({ models, ...options }: RunOptions) => {
    if (!models) throw new CapfleetError("USAGE", "--models is missing: what should this worker run?");
    listen();
    await runWorker({ models, ...options }, stop.signal, labelled);
  })
  // What comes after `models` is for its commands: some options have the same names.
  .enablePositionalOptions()
  .addCommand(modelsCommand());

function listen(): void {
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => stop.abort());
  // Started by `capfleet run`: without it, its Redis is gone too, and nothing is left to do here.
  if (process.channel) process.once("disconnect", () => process.exit(1));
}

/** Tells `capfleet run` that this worker is of use: it gives up on one that dies again and again before. */
function labelled(): void {
  // Where nobody listens any more, "disconnect" ends this process.
  process.send?.("labelled", () => {});
}

await runToEnd(program);

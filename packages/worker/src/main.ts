/** `capfleet-worker`: the command line of the worker process. */
import { availableParallelism } from "node:os";
import { endWith, wholeNumber } from "@capfleet/shared/command-line";
import { CAPFLEET_VERSION } from "@capfleet/shared/contract";
import { Command } from "commander";
import { runWorker } from "./worker.ts";

const program = new Command("capfleet-worker")
  .description("Runs models on the shards that a capfleet producer hands out.")
  .version(CAPFLEET_VERSION)
  .requiredOption("--models <name,…>", "what to run: bundled models or checkpoint folders", (text) => text.split(","))
  .option("--slots <n>", "shards in work at once", wholeNumber(64), 2)
  .option("--threads <n>", "threads for inference", wholeNumber(256), availableParallelism())
  .addHelpText(
    "after",
    `
Needs CAPFLEET_REDIS_URL, and CAPFLEET_STATE where it is not this machine's default.
SIGTERM: takes no more shards, finishes what it can within CAPFLEET_GRACE_SECONDS (25), gives the rest back, exits 0.

Examples:
  CAPFLEET_REDIS_URL=redis://localhost:6379 capfleet-worker --models demo-caption
  capfleet-worker --models ./blip-image-captioning-base --slots 2`,
  );

const stop = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => stop.abort());

// Started by `capfleet run`: without it, its Redis is gone too, and nothing is left to do here.
if (process.channel) process.once("disconnect", () => process.exit(1));

try {
  program.exitOverride().configureOutput({ outputError: () => {} });
  const options = program.parse().opts<{ models: string[]; slots: number; threads: number }>();
  await runWorker(options, stop.signal);
  process.exit(0);
} catch (thrown) {
  endWith(thrown);
}

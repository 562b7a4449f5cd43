/** What `run` and `submit` have in common: their arguments and options. */
import { many, numberFrom, someText, wholeNumber } from "@capfleet/shared/command-line";
import { FORMATS, JOB_TASKS, MAX_SHARD_SIZE, PRECISIONS } from "@capfleet/shared/contract";
import { type Command, Option } from "commander";
import { addTaskOptions } from "./task-options.ts";

export const MODEL_FORMS =
  "a bundled or registered model; a checkpoint's folder or s3:// prefix; a hub id, owner/name or owner/name@revision";

const PRECISION_HELP =
  "how the model computes; int8, int4: on a CPU; int4: BLIP-2 with OPT " +
  "(default: what workers run it as, or int8 on a CPU and fp16 on a GPU)";

/** Of jobs of a fleet. */
export const LANE = new Option("--lane <lane>", "share of a busy fleet").choices(["normal", "bulk"]).default("normal");

/** Adds arguments and options; `own` are the command's alone. */
export function addJobOptions(command: Command, own: readonly Option[]): Command {
  command
    .argument("<task>", `what to do: ${JOB_TASKS.join(", ")}`)
    .argument(
      "<input>",
      "a folder or prefix of images, a .jsonl, .csv, .tsv or .parquet manifest, or .tar shards; several: {000..099}.tar",
    )
    .requiredOption("--out <uri>", "where the job and its results go: an empty prefix or folder")
    .option("--model <model>", `${MODEL_FORMS} (default: the task's demo)`)
    .option("--captioner <model>", "capfilt: the model that makes captions (default: the demo)")
    .option("--filter <model>", "capfilt, filter: the model that says which texts match (default: the demo)")
    .addOption(new Option("--precision <precision>", PRECISION_HELP).choices(PRECISIONS))
    .option("--image-column <name>", "a manifest's field with the image (default: image)", someText(1_000))
    .option("--id-column <name>", "a manifest's field with the record's id (default: id)", someText(1_000))
    .option(
      "--keep <name>",
      "a further field that every row gets as `kept`; may be repeated",
      many(someText(1_000), 100),
    )
    .option(
      "--max-error-rate <x>",
      "stop when a larger part of the rows fails, once there are 1,000 (default: 0.5)",
      numberFrom(0, 1),
    )
    .addOption(
      new Option(
        "--format <format>",
        "what is written beside the rows, below data/: a Parquet file or a tar with images for each shard",
      )
        .choices(FORMATS)
        .default("jsonl"),
    )
    .option("--limit <n>", "only the first n records", wholeNumber(1e12))
    .option(
      "--incremental",
      "only images that are new or have changed since the last run; --out is the dataset that all runs make",
    )
    .option("--shard-size <n>", "records per shard (default: 512, fewer in a small job)", wholeNumber(MAX_SHARD_SIZE));
  for (const option of own) command.addOption(option);
  return addTaskOptions(command);
}

export const TASK_EXAMPLES = `Tasks:
  caption   capfleet run caption ./photos --out ./labels --num-beams 3 --max-new-tokens 30
            capfleet run caption ./photos --out ./labels --num-captions 3 --top-p 0.9 --seed 7
  vqa       capfleet run vqa ./photos --out ./labels --question "is there a dog?" --question "what color is it?"
            capfleet run vqa list.jsonl --out ./labels --question-column question --answers yes,no
            capfleet run vqa ./photos --out ./labels --model Salesforce/blip2-opt-2.7b --question "How many remotes are there?"
  itm       capfleet run itm ./photos --out ./labels --text "a dog on a lawn"      the probability that it matches
            capfleet run itm list.jsonl --out ./labels --text-column alt
  itc       capfleet run itc ./photos --out ./labels --text "a dog" --text "a cat" cosine similarities
  embed     capfleet run embed ./photos --out ./vectors                            of the images
            capfleet run embed texts.jsonl --out ./vectors --text-column text      of texts
  capfilt   capfleet run capfilt web.jsonl --out ./cleaned --text-column alt --captioner ./blip --filter ./blip-itm
  filter    capfleet run filter web.jsonl --out ./cleaned --text-column alt --threshold 0.6`;

/** The commands of `capfleet`, their arguments and their help. */
import { many, numberFrom, someText, wholeNumber } from "@capfleet/shared/command-line";
import { CAPFLEET_VERSION, FORMATS } from "@capfleet/shared/contract";
import { Command, Option } from "commander";
import { askedJob, DEFAULT_MODELS, type JobOptions } from "../jobs/asked-job.ts";
import { type NewKey, SCOPES } from "../keys/api-key.ts";
import { type Context, openContext } from "./context.ts";
import { change, status, submit, watch } from "./control.ts";
import { deleteJob } from "./delete.ts";
import { doctor } from "./doctor.ts";
import { addInferOptions, type InferCommandOptions, infer } from "./infer.ts";
import { addJobOptions, LANE, MODEL_FORMS, TASK_EXAMPLES } from "./job-options.ts";
import { keysCreate, keysList, keysRevoke } from "./keys.ts";
import { addPlanOptions, type PlanOptions, plan } from "./plan.ts";
import { type ResultsOptions, results } from "./results.ts";
import { type RetryOptions, resume, retry } from "./resume.ts";
import { run } from "./run.ts";
import { addScheduleCommands } from "./schedule.ts";
import type { ServeOptions } from "./serve.ts";

/** A command line that has not run yet: it runs once. */
export function commandLine(): Command {
  const program = new Command("capfleet")
    .description("Labels images in bulk with BLIP and BLIP-2, from bucket to bucket.")
    .version(CAPFLEET_VERSION)
    .showSuggestionAfterError(true)
    .addHelpText(
      "after",
      `
Locations are s3://bucket/key, file:///path, or paths. CAPFLEET_STATE says where jobs are kept, CAPFLEET_REDIS_URL
which Redis a fleet shares; AWS_* variables and profiles say how S3 is reached.

Examples:
  capfleet run caption ./photos --out ./labels
  capfleet run vqa ./photos --out ./answers --question "is there a dog?"
  capfleet submit caption s3://photos/2026/ --out s3://labels/2026/ --wait
  capfleet status
  capfleet doctor s3://labels/`,
    );

  addJobOptions(program.command("run").description("Run a job on this machine, from start to end."), [
    new Option("--device <device>", "where the model runs: cpu, cuda or cuda:N").default("cpu"),
  ])
    .addHelpText(
      "after",
      `
The same command again goes on with an interrupted job. Rows that can't be labelled get an error in their row; the
exit code is 0 all the same, and the summary says how many and why.

${TASK_EXAMPLES}

Examples:
  capfleet run caption ./photos --out ./labels --model Salesforce/blip-image-captioning-base
  capfleet run caption list.jsonl --out ./labels --limit 100
  capfleet run caption s3://photos/ --out s3://labels/today/
  capfleet run caption s3://photos/ --out s3://labels/all/ --incremental`,
    )
    .action((task: string, input: string, options: JobOptions & { device: string }) =>
      withContext("silent", (context) => run(askedJob(task, input, options, "local"), options.device, context)),
    );

  addJobOptions(
    program
      .command("submit")
      .description("Hand a job to the fleet that `capfleet serve` looks after, and print its id."),
    [
      LANE,
      new Option("--wait", "show progress until the job has ended").default(false),
      new Option("--json", "print one JSON object").default(false),
    ],
  )
    .addHelpText(
      "after",
      `
${TASK_EXAMPLES.replaceAll("capfleet run", "capfleet submit")}

Examples:
  capfleet submit caption s3://photos/ --out s3://labels/run1/ --model blip-base
  capfleet submit caption s3://photos/list.jsonl --out s3://labels/run2/ --wait`,
    )
    .action((task: string, input: string, options: JobOptions & { wait: boolean; json: boolean }) =>
      withContext("silent", (context) =>
        submit(askedJob(task, input, options, "fleet"), options.wait, options.json, context),
      ),
    );

  addPlanOptions(
    program
      .command("plan")
      .description("How long a job would take, and what it would cost, by what jobs have measured."),
  ).action((input: string | undefined, options: PlanOptions) =>
    withContext("silent", (context) => plan(input, options, context)),
  );

  program
    .command("status")
    .description("How all jobs are doing, or one.")
    .argument("[job]", "a job's id or output, or a dataset's root")
    .option("--json", "one JSON object per job", false)
    .addHelpText("after", "\nExamples:\n  capfleet status\n  capfleet status ./labels --json")
    .action((job: string | undefined, { json }: { json: boolean }) =>
      withContext("silent", (context) => status(job, json, context)),
    );

  const onJob = (
    name: string,
    description: string,
    act: (job: string, context: Context, options: RetryOptions) => Promise<void>,
  ) =>
    program
      .command(name)
      .description(description)
      .argument("<job>", "a job's id or output")
      .addHelpText(
        "after",
        `\nExamples:\n  capfleet ${name} job_01K9ZJ5W3N8Q4T6V7X8Y9Z0A1B\n  capfleet ${name} s3://labels/today/`,
      )
      .action((job: string, options: RetryOptions) => withContext("silent", (context) => act(job, context, options)));

  onJob("watch", "Show a job's progress until it has ended.", watch);
  onJob("pause", "Hold a job: what is in work commits, the rest waits.", (job, context) =>
    change(job, "paused", context),
  );
  onJob("cancel", "End a job early: what is committed stays.", (job, context) => change(job, "cancelled", context));
  const device = ["--device <device>", "local jobs: where the model runs: cpu, cuda or cuda:N (default: cpu)"] as const;
  onJob("resume", "Go on with a paused or interrupted job (a local one: here, until it ends).", resume).option(
    ...device,
  );
  onJob("retry", "Do again what failed and may succeed: rows of a finished job, the rest of a failed one.", retry)
    .option(...device)
    .option("--max-error-rate <x>", "from now on; see `capfleet run --help`", numberFrom(0, 1));

  program
    .command("results")
    .description(
      "Print a job's rows as JSON lines, in input order (of a dataset, in the order of its images' keys); or write them as a dataset.",
    )
    .argument("<job>", "a job's id or output, or a dataset's root")
    .argument("[uri]", "with --to: an empty prefix or folder")
    .addOption(new Option("--to <format>", "write all labelled rows to <uri>, in parts").choices(FORMATS))
    .option("--errors", "only rows that failed", false)
    .option("--kept", "capfilt, filter: only the texts that were kept, a line each", false)
    .addHelpText(
      "after",
      `
The same command again goes on with an interrupted export.

Examples:
  capfleet results ./labels
  capfleet results s3://labels/today/ --errors
  capfleet results ./cleaned --kept
  capfleet results ./labels --to parquet ./table
  capfleet results s3://labels/today/ --to webdataset s3://train/today/`,
    )
    .action((job: string, uri: string | undefined, options: ResultsOptions) =>
      withContext("silent", (context) => results(job, uri, options, context)),
    );

  program
    .command("delete")
    .description(
      "Delete a job that has ended, or a dataset of incremental runs, with everything that was written. Asks first.",
    )
    .argument("<job>", "a job's id or output, or a dataset's root")
    .option("--yes", "do not ask", false)
    .addHelpText("after", "\nExamples:\n  capfleet delete ./labels\n  capfleet delete s3://labels/old/ --yes")
    .action((job: string, options: { yes: boolean }) =>
      withContext("silent", (context) => deleteJob(job, options, context)),
    );

  addInferOptions(program.command("infer").description("Ask the fleet about one image, and print the answer.")).action(
    (task: string, image: string | undefined, options: InferCommandOptions) =>
      withContext("silent", (context) => infer(task, image, options, context)),
  );

  program
    .command("serve")
    .description(
      "Look after the jobs of a fleet: plan, hand out, finish; and take jobs over HTTP. Runs until it is stopped.",
    )
    .option("--host <address>", "where the API listens; beyond this machine it needs keys (default: 127.0.0.1)")
    .option("--port <n>", "its port; 0: any that is free (default: 8484)", wholeNumber(65_535, 0))
    .addHelpText(
      "after",
      `
The API is described at /docs and /openapi.json.

Examples:
  CAPFLEET_REDIS_URL=redis://redis:6379 CAPFLEET_STATE=s3://labels/.capfleet/ capfleet serve
  capfleet serve --host 0.0.0.0`,
    )
    .action((options: ServeOptions) =>
      withContext("info", async (context) => {
        // The HTTP server is a third of all there is to load: other commands do without it.
        const { serve } = await import("./serve.ts");
        await serve(options, context);
      }),
    );

  const keys = program
    .command("keys")
    .description("Who may use the API of `capfleet serve`, and for what.")
    .addHelpText("after", "\nExamples:\n  capfleet keys create --name ops --scope admin\n  capfleet keys list");
  keys
    .command("create")
    .description("Make a key and show it, once.")
    .requiredOption("--name <name>", "whose it is, for `keys list`", someText(200))
    .addOption(
      new Option("--scope <scope>", "look at jobs; submit and steer them too; or all of it, everywhere")
        .choices(SCOPES)
        .makeOptionMandatory(),
    )
    .option("--read <uri>", "a prefix that inputs may be below; may be repeated", many(someText(4_096), 100), [])
    .option(
      "--write <uri>",
      "a prefix that outputs, and visible jobs, are below; may be repeated",
      many(someText(4_096), 100),
      [],
    )
    .addHelpText(
      "after",
      `
Examples:
  capfleet keys create --name ops --scope admin
  capfleet keys create --name team-a --scope submit --read s3://photos/a/ --write s3://labels/a/`,
    )
    .action((asked: NewKey) => withContext("silent", (context) => keysCreate(asked, context)));
  keys
    .command("list")
    .description("Every key: what it is for, never the key itself.")
    .option("--json", "one JSON object per key", false)
    .action(({ json }: { json: boolean }) => withContext("silent", (context) => keysList(json, context)));
  keys
    .command("revoke")
    .description("Take a key out of use, within seconds and for good.")
    .argument("<id>", "what `keys list` calls it")
    .action((id: string) => withContext("silent", (context) => keysRevoke(id, context)));

  addScheduleCommands(program.command("schedule"), (act) => withContext("silent", act));

  program
    .command("doctor")
    .description("Try Redis, storage, model and processor, and say what to do about each.")
    .argument("[location...]", "further locations to read and write")
    .option("--model <model>", `the model to look for: ${MODEL_FORMS}`, DEFAULT_MODELS.caption)
    .option("--json", "one JSON array", false)
    .addHelpText("after", "\nExamples:\n  capfleet doctor\n  capfleet doctor s3://labels/ --model ./blip-base")
    .action((locations: string[], { model, json }: { model: string; json: boolean }) =>
      withContext("silent", async (context) => {
        if (!(await doctor({ model, locations, json }, context))) process.exitCode = 1;
      }),
    );
  return program;
}

async function withContext(logLevel: "info" | "silent", act: (context: Context) => Promise<void>): Promise<void> {
  const context = openContext(logLevel);
  try {
    await act(context);
  } finally {
    context.stores.close();
  }
}

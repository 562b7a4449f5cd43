/** `capfleet schedule`: jobs that the fleet starts by itself, such as every night. */
import { bundledFolder, findModel, sourceOf } from "@capfleet/shared/models";
import { Command } from "commander";
import { askedJob, type JobOptions } from "../jobs/asked-job.ts";
import { createSchedule } from "../schedules/create.ts";
import { nextDue, type Timing } from "../schedules/due.ts";
import { ask, paused, resumed } from "../schedules/run.ts";
import { type EndedRun, type Schedule, Schedules } from "../schedules/schedule.ts";
import { type Context, wakeReconciler } from "./context.ts";
import { count, plural } from "./format.ts";
import { addJobOptions, LANE } from "./job-options.ts";
import { showingDownload } from "./progress.ts";

type WithContext = (act: (context: Context) => Promise<void>) => Promise<void>;

export function addScheduleCommands(command: Command, withContext: WithContext): void {
  command.description("Jobs that `capfleet serve` starts by itself, such as every night.").addHelpText(
    "after",
    `
Examples:
  capfleet schedule create nightly --cron "0 2 * * *" --tz Europe/Berlin -- caption s3://photos/ --out s3://labels/ --incremental
  capfleet schedule list
  capfleet schedule run nightly`,
  );
  command
    .command("create")
    .description("Make a schedule. What follows -- is a job as `capfleet submit` takes it.")
    .usage("<name> --cron <pattern> [--tz <zone>] -- <task> <input> --out <uri> [options]")
    .argument("<name>", 'a-z, 0-9, "-" and "_"')
    .argument("<job...>", "the job's task, input and options; see `capfleet submit --help`")
    .requiredOption("--cron <pattern>", "when: minute, hour, day of the month, month, day of the week")
    .option("--tz <zone>", "the time zone that this is in, such as Europe/Berlin", "UTC")
    .addHelpText(
      "after",
      `
With --incremental all runs make one dataset, at --out. Otherwise each is a job of all that is there then, at
<out>/runs/<time>/. There are never two runs of a schedule at once; what was missed runs once, when \`capfleet serve\` is back.

Example:
  capfleet schedule create nightly --cron "0 2 * * *" --tz Europe/Berlin -- caption s3://photos/ --out s3://labels/ --incremental`,
    )
    .action((name: string, job: string[], { cron, tz }: { cron: string; tz: string }) =>
      withContext((context) => create(name, { cron, timeZone: tz }, job, context)),
    );
  command
    .command("list")
    .description("Every schedule: when it is due next, and how its last run went.")
    .option("--json", "one JSON object per schedule", false)
    .action(({ json }: { json: boolean }) => withContext((context) => list(json, context)));
  const onSchedule = (name: string, description: string, act: (schedule: string, context: Context) => Promise<void>) =>
    command
      .command(name)
      .description(description)
      .argument("<name>", "what `schedule list` calls it")
      .action((schedule: string) => withContext((context) => act(schedule, context)));
  command
    .command("show")
    .description("A schedule and its last runs.")
    .argument("<name>", "what `schedule list` calls it")
    .option("--json", "one JSON object", false)
    .action((name: string, { json }: { json: boolean }) => withContext((context) => show(name, json, context)));
  onSchedule("run", "Ask for a run now, also of a paused schedule.", run);
  onSchedule("pause", "Start nothing by itself until it is resumed; a run under way goes on.", pause);
  onSchedule("resume", "Go on from now: what was missed while it was paused does not run.", resume);
  onSchedule("delete", "Delete the schedule; its jobs and datasets stay.", remove);
}

async function create(name: string, timing: Timing, command: string[], context: Context): Promise<void> {
  const parser = new Command(`capfleet schedule create ${name} --`).exitOverride();
  const given = addJobOptions(parser.configureOutput({ outputError: () => {} }), [LANE]).parse(command, {
    from: "user",
  });
  const [task, input] = given.args;
  const options = askedJob(task!, input!, given.opts<JobOptions>(), "fleet");
  const asked = { ...options, models: options.models.map(modelAnywhere) };
  const { state, stores, config } = context;
  const schedule = await showingDownload(stores, (fetching) => {
    const find = (model: string) => findModel(model, asked.precision, state, config, fetching);
    return createSchedule(
      { name, ...timing, command, asked, webhook: null },
      { state, stores, findModel: find },
      Date.now(),
    );
  });
  print(`created ${name}; ${nextText(schedule)}`);
}

/** Paths are this process's; the producer's may be others. */
function modelAnywhere(given: string): string {
  const source = sourceOf(given);
  return source.kind === "folder" && !bundledFolder(given) ? source.folder : given;
}

async function list(json: boolean, { state, config }: Context): Promise<void> {
  const schedules = new Schedules(state);
  let found = 0;
  for await (const { name } of schedules.all()) {
    const { schedule } = await schedules.read(name);
    found += 1;
    print(json ? JSON.stringify(shownOf(schedule)) : [headOf(schedule), ...currentLines(schedule, 1)].join("\n"));
  }
  if (found === 0 && !json) process.stderr.write(`no schedules in ${config.state}\n`);
}

async function show(name: string, json: boolean, { state }: Context): Promise<void> {
  const { schedule } = await new Schedules(state).read(name);
  if (json) return print(JSON.stringify(shownOf(schedule)));
  const { command, created, runs } = schedule;
  // One that came over HTTP has none.
  const job = command.length > 0 ? [`  job      ${command.map(quoted).join(" ")}`] : [];
  print([headOf(schedule), ...job, `  created  ${created}`, ...currentLines(schedule, runs.length)].join("\n"));
}

async function run(name: string, context: Context): Promise<void> {
  const { run: current } = await new Schedules(context.state).update(name, (schedule) => ask(schedule, Date.now()));
  if (current) return print(`a run of ${name} is under way already: ${current.job ?? "it is being started"}`);
  await wakeReconciler(context, name);
  print(`asked for a run of ${name}; \`capfleet serve\` starts it within seconds`);
}

async function pause(name: string, { state }: Context): Promise<void> {
  const { run: current } = await new Schedules(state).update(name, paused);
  print(`paused ${name}${current ? `; its run goes on (${current.job ?? current.due})` : ""}`);
}

async function resume(name: string, { state }: Context): Promise<void> {
  const schedule = await new Schedules(state).update(name, (schedule) => resumed(schedule, Date.now()));
  print(`resumed ${name}; ${nextText(schedule)}`);
}

async function remove(name: string, { state }: Context): Promise<void> {
  const schedules = new Schedules(state);
  const { schedule } = await schedules.read(name);
  await schedules.delete(name);
  print(`deleted the schedule ${name}; what its runs have written stays: ${schedule.job.request.output}`);
  const job = schedule.run?.job;
  if (job) print(`its run goes on: ${job} (end it with \`capfleet cancel ${job}\`)`);
}

/** All but the webhook's secret. */
function shownOf(schedule: Schedule) {
  const next = schedule.paused ? null : nextDue(schedule, Date.now());
  const { webhook } = schedule.job;
  const job = { ...schedule.job, webhook: webhook && { url: webhook.url } };
  return { ...schedule, job, next: next === null ? null : new Date(next).toISOString() };
}

function headOf(schedule: Schedule): string {
  const { name, cron, timeZone, job } = schedule;
  const { task, input, output, incremental } = job.request;
  const what = `${task.name}  ${input} → ${output}${incremental ? "  incremental" : ""}`;
  return `${name}  ${cron} (${timeZone})  ${nextText(schedule)}  ${what}`;
}

function nextText(schedule: Schedule): string {
  if (schedule.paused) return "paused";
  const next = nextDue(schedule, Date.now());
  return next === null ? "never due again" : `next ${at(next, schedule)}`;
}

/** The run under way, and the `most` last ones, the newest first. */
function currentLines(schedule: Schedule, most: number): string[] {
  const { run, asked, runs } = schedule;
  const lines: string[] = [];
  if (asked) lines.push(`  ${at(Date.parse(asked), schedule)}  asked for; waits for \`capfleet serve\``);
  if (run) {
    const trouble = run.error && `waiting: ${run.error.code}: ${run.error.message}`;
    lines.push(
      `  ${at(Date.parse(run.due), schedule)}  ${trouble ?? (run.job ? `under way  ${run.job}` : "starting")}`,
    );
  }
  return [
    ...lines,
    ...runs
      .slice(-most)
      .reverse()
      .map((ended) => endedLine(ended, schedule)),
  ];
}

function endedLine({ due, outcome, rows, failed, error, job }: EndedRun, timing: Timing): string {
  const parts = [`  ${at(Date.parse(due), timing)}`, outcome];
  if (rows !== null) parts.push(plural(rows, "row"));
  if (failed) parts.push(`${count(failed)} failed`);
  if (job) parts.push(job);
  if (error) parts.push(`${error.code}: ${error.message}`);
  return parts.join("  ");
}

/** In the schedule's own zone; Sweden writes times as ISO 8601 does. */
const at = (time: number, { timeZone }: Timing) =>
  new Intl.DateTimeFormat("sv-SE", { timeZone, dateStyle: "short", timeStyle: "short" }).format(time);
const quoted = (text: string) => (/^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
const print = (line: string) => {
  process.stdout.write(`${line}\n`);
};

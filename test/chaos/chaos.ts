/**
 * `npm run chaos -- [--faults N] [--seed S] [--records R] [--logs FOLDER]`: labels R small records with a real Redis, a real
 * S3 server, `capfleet serve` and two workers, while N faults strike them at random; the seed says which, where, and after how
 * many rows. Ends with one line of JSON, and with exit code 1 where a row is lost, doubled or wrong, a job is stuck, a process
 * crashes by itself or outlives its parent, or something is left behind. Progress goes to stderr.
 */
import { cp } from "node:fs/promises";
import { parseArgs } from "node:util";
import { checkJob, leftoverKeys } from "./check.ts";
import { Corpus } from "./jobs.ts";
import { KIND_NAMES, planFaults } from "./plan.ts";
import { Recoveries } from "./recoveries.ts";
import { runUnderFaults } from "./run.ts";
import { World } from "./world.ts";

const USAGE = "usage: npm run chaos -- [--faults N] [--seed S] [--records R] [--logs FOLDER]";
const ENDING_SECONDS = 60;

const say = (line: string) => process.stderr.write(`${line}\n`);

function wanted() {
  const text = (value: string) => ({ type: "string", default: value }) as const;
  const options = { faults: text("40"), seed: text("1"), records: text("20000"), logs: { type: "string" } } as const;
  const { values } = parseArgs({ options });
  const [faults, seed, records] = [values.faults, values.seed, values.records].map(Number) as [number, number, number];
  for (const number of [faults, seed, records])
    if (!Number.isSafeInteger(number) || number < 0) throw new Error("whole numbers, please");
  if (records < 1) throw new Error("without records nothing can be lost");
  return { faults, seed, records, logs: values.logs };
}

let work: ReturnType<typeof wanted>;
try {
  work = wanted();
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`);
  process.exit(2);
}
const interrupted = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => interrupted.abort(new Error(signal)));

const { faults, seed, records, logs } = work;
say("starting Redis, a store, a producer and two workers");
const world = await World.create();
let isFine = false;
try {
  for (const [kind, why] of Object.entries(world.leftOut)) say(`left out: ${kind}: ${why}`);
  world.start();
  const corpus = await Corpus.write(world, records);
  await corpus.learn(world);
  const plan = planFaults(
    faults,
    seed,
    records,
    KIND_NAMES.filter((kind) => !(kind in world.leftOut)),
  );
  const recoveries = new Recoveries();
  const started = performance.now();
  const { jobs, stuck, struck } = await runUnderFaults({
    world,
    corpus,
    records,
    plan,
    recoveries,
    say,
    signal: interrupted.signal,
  });
  const seconds = (performance.now() - started) / 1_000;

  say("all faults are over: looking at what is there");
  const problems = [...stuck];
  const unreached = [...world.processes.values()].flatMap((process) => process.unreached);
  // In good order, and soon: a process that hangs has not survived.
  for (const kept of world.processes.values()) {
    const ended = await Promise.race([kept.end(), late()]);
    if (ended !== 0) problems.push(`${kept.name} was told to end, and the end was ${ended}`);
    problems.push(...kept.crashes);
  }
  const orphans = await world.running();
  const keys = await leftoverKeys(world);
  const totals = { rows: 0, lost: 0, doubled: 0, wrong: 0 };
  const objects: string[] = [];
  for (const job of jobs) {
    const verdict = await checkJob(job, corpus);
    for (const name of ["rows", "lost", "doubled", "wrong"] as const) totals[name] += verdict[name];
    objects.push(...verdict.leftoverObjects);
    problems.push(...verdict.problems);
  }
  for (const process of orphans) problems.push(`still there: ${process}`);
  for (const left of [...keys, ...objects]) problems.push(`left behind: ${left}`);
  for (const problem of problems.slice(0, 50)) say(problem);
  isFine = problems.length === 0;
  const result = {
    seed,
    faults: Object.values(struck).reduce((sum, count) => sum + count, 0),
    byKind: struck,
    unreached: unreached.length,
    leftOut: Object.keys(world.leftOut),
    records,
    ...totals,
    jobs: jobs.length,
    stuck: stuck.length,
    orphans: orphans.length,
    leftoverObjects: objects.length,
    leftoverKeys: keys.length,
    crashes: [...world.processes.values()].reduce((sum, { crashes }) => sum + crashes.length, 0),
    problems: problems.length,
    seconds: Math.round(seconds),
    ...recoveries.figures(),
  };
  console.log(JSON.stringify(result));
} catch (thrown) {
  say(interrupted.signal.aborted ? "interrupted" : String((thrown as Error).stack));
} finally {
  if (logs) await cp(world.sandbox.path("logs"), logs, { recursive: true }).catch(() => {});
  await world.remove();
}
process.exit(interrupted.signal.aborted ? 130 : isFine ? 0 : 1);

function late(): Promise<string> {
  return new Promise((resolve) =>
    setTimeout(resolve, ENDING_SECONDS * 1_000, `not there after ${ENDING_SECONDS} s`).unref(),
  );
}

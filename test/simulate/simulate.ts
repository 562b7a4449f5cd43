/**
 * `npm run simulate -- [OPTIONS]`: the real autoscaling policy over a night's load, a burst and spot losses. Prints a table and
 * draws workers, backlog and cost over time.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { Command } from "commander";
import { grid, type Panel } from "./chart.ts";
import { type Fleet, type Outcome, type Scenario, simulate } from "./fleet.ts";
import { RATE, SCENARIOS } from "./scenarios.ts";

const number = (text: string) => {
  const value = Number(text);
  if (!(value > 0)) throw new Error(`${text} is not a number above 0`);
  return value;
};

const { rate, drain, startup, max, seed, out } = new Command("simulate")
  .description("Runs capfleet's autoscaling policy over simulated loads.")
  .option("--rate <n>", "images a second of one worker", number, RATE)
  .option("--drain <seconds>", "what CAPFLEET_DRAIN_SECONDS says", number, 1_800)
  .option("--startup <seconds>", "what CAPFLEET_STARTUP_SECONDS says, and what a worker takes", number, 180)
  .option("--max <n>", "most workers", number, 100)
  .option("--seed <n>", "of chance", number, 1)
  .option("--out <file>", "where to draw", resolve(import.meta.dirname, "../../docs/images/autoscaling.svg"))
  .parse()
  .opts<{ rate: number; drain: number; startup: number; max: number; seed: number; out: string }>();

const fleet: Fleet = { rate, target: { drainSeconds: drain, startupSeconds: startup }, maxWorkers: max, seed };
const outcomes = SCENARIOS.map((scenario) => {
  const given = { ...scenario, startupSeconds: startup };
  return { scenario: given, outcome: simulate(given, fleet) };
});

const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
console.log(
  "| scenario | drained in | most workers | worker-hours | at work | starting | idle | lost | labelled again |",
);
console.log("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
for (const { scenario, outcome } of outcomes) console.log(`| ${row(scenario, outcome).join(" | ")} |`);
await mkdir(dirname(out), { recursive: true });
const title = "Workers, backlog and cost over time under capfleet's autoscaling policy";
await writeFile(
  out,
  grid(
    title,
    outcomes.map(({ scenario, outcome }) => panels(scenario, outcome)),
  ),
);
console.error(`drawn: ${out}`);

function row({ name }: Scenario, outcome: Outcome): string[] {
  const { drainSeconds, paidHours, idleShare, startingShare, lost, againShare, samples } = outcome;
  const most = Math.max(...samples.map(({ live }) => live));
  return [
    name,
    `${(drainSeconds / 60).toFixed(1)} min`,
    String(most),
    paidHours.toFixed(1),
    percent(1 - idleShare - startingShare),
    percent(startingShare),
    percent(idleShare),
    String(lost),
    percent(againShare),
  ];
}

/** A point each 30 s is enough to see. */
function panels({ name }: Scenario, { samples }: Outcome): Panel[] {
  const seen = samples.filter(({ at }) => at % 30 === 0);
  const line = (of: (sample: Outcome["samples"][number]) => number) =>
    seen.map((sample) => ({ x: sample.at / 60, y: of(sample) }));
  return [
    {
      title: name,
      lines: [
        { label: "with starting", colour: "#9a6700", points: line(({ live, starting }) => live + starting) },
        { label: "workers", colour: "#0969da", isArea: true, points: line(({ live }) => live) },
      ],
    },
    { title: "backlog", lines: [{ label: "images", colour: "#8250df", isArea: true, points: line((s) => s.backlog) }] },
    { title: "cost", lines: [{ label: "worker-hours", colour: "#1a7f37", points: line((s) => s.paid) }] },
  ];
}

/** The policy in the simulator that draws docs/images/autoscaling.svg. */
import { expect, test } from "vitest";
import { simulate } from "../../../test/simulate/fleet.ts";
import { RATE, SCENARIOS } from "../../../test/simulate/scenarios.ts";

const target = { drainSeconds: 1_800, startupSeconds: 180 };
/** What the policy can't know: the autoscaler's steps on the way up, and the last two shards of each worker. */
const BEYOND = 120 + (2 * 512) / RATE;

test.each(SCENARIOS)("$name: done about in time, then nothing runs, and nothing flaps", (scenario) => {
  const { samples, drainSeconds, idleShare } = simulate(scenario, { rate: RATE, target, maxWorkers: 100, seed: 1 });
  expect(drainSeconds).toBeLessThan(target.drainSeconds + BEYOND);
  expect(samples.at(-1)).toMatchObject({ live: 0, starting: 0, wanted: 0, backlog: 0 });
  expect(idleShare).toBeLessThan(0.2);
  // While work waits, workers are neither sent away nor asked for beyond the first answer to it.
  const [largest] = scenario.arrivals.toSorted((a, b) => b.records - a.records);
  const at = ({ at }: { at: number }) => at >= largest!.at + 240 && at < largest!.at + 1_500;
  const replicas = samples.filter(at).map(({ live, starting }) => live + starting);
  if (scenario.spotLifeSeconds === null) expect(new Set(replicas).size).toBe(1);
});

test("no more workers than may be", () => {
  const { samples } = simulate(SCENARIOS[0]!, { rate: RATE, target, maxWorkers: 10, seed: 1 });
  expect(Math.max(...samples.map(({ live }) => live))).toBe(10);
});

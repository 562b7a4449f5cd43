/** What the simulated fleet meets. Numbers of images are chosen for a worker of `RATE`: a night of some 20 worker-hours. */
import type { Scenario } from "./fleet.ts";

/** Images a second of one worker: BLIP-base in int8, greedy, on 2 cores, as docs/performance.md has it. */
export const RATE = 2.83;

const HOUR = 3_600;

/** From a provider's request to a worker that takes shards: assumed. */
const STARTUP_SECONDS = 180;
/** How long a spot machine lives, in the mean: assumed, and short. */
const SPOT_LIFE_SECONDS = 2 * HOUR;

export const SCENARIOS: readonly Scenario[] = [
  {
    name: "nightly load",
    seconds: 1.25 * HOUR,
    arrivals: [{ at: 300, records: 200_000 }],
    startupSeconds: STARTUP_SECONDS,
    spotLifeSeconds: null,
  },
  {
    name: "a burst into small jobs",
    seconds: 2.5 * HOUR,
    arrivals: [
      ...Array.from({ length: 9 }, (_, i) => ({ at: 300 + i * 900, records: 2_000 })),
      { at: 0.75 * HOUR, records: 100_000 },
    ].sort((a, b) => a.at - b.at),
    startupSeconds: STARTUP_SECONDS,
    spotLifeSeconds: null,
  },
  {
    name: "nightly load, spot losses",
    seconds: 1.25 * HOUR,
    arrivals: [{ at: 300, records: 200_000 }],
    startupSeconds: STARTUP_SECONDS,
    spotLifeSeconds: SPOT_LIFE_SECONDS,
  },
];

/** The API: how fast small jobs are taken, and how long a job's status takes while a hundred jobs are at work. */
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type ApiClient, serving } from "../support/api.ts";
import { DEMO } from "../support/processes.ts";
import type { Figure } from "./bench.ts";
import { BenchFleet, say } from "./fleet.ts";

const JOBS = 100;
const AT_ONCE = 8;
const LOOKS = 500;

export async function apiFigures(): Promise<Figure[]> {
  await using fleet = await BenchFleet.start();
  const { api } = await serving(fleet.sandbox, { ...fleet.env, CAPFLEET_API_RATE: "1000000" });
  const input = fleet.sandbox.path("in");
  await mkdir(input);
  for (const copy of Array(20).keys()) await cp(join(DEMO, "images/scene-003.jpg"), join(input, `${copy}.jpg`));

  say(`submitting ${JOBS} jobs of 20 images`);
  const started = performance.now();
  const ids = await atOnce(JOBS, async (n) => {
    const { status, body } = await api.submit({ task: "caption", input, output: fleet.sandbox.path(`out-${n}`) });
    if (status !== 202) throw new Error(JSON.stringify(body));
    return body.id;
  });
  const seconds = (performance.now() - started) / 1_000;

  // No worker runs: all stay at work.
  await Promise.all(ids.map((id) => api.when(id, "running")));
  say(`asking ${LOOKS} times for a job`);
  const times = await atOnce(LOOKS, (n) => timed(api, `/v1/jobs/${ids[n % JOBS]}`));
  times.sort((a, b) => a - b);
  return [
    { name: "api.submissions", value: JOBS / seconds, unit: `jobs/s, of 20 images, ${AT_ONCE} at once` },
    {
      name: "api.status.p95",
      value: times[Math.floor(0.95 * LOOKS)]!,
      unit: `ms, of ${JOBS} running, ${AT_ONCE} at once`,
    },
  ];
}

async function timed(api: ApiClient, path: string): Promise<number> {
  const started = performance.now();
  const { status } = await api.get(path);
  if (status !== 200) throw new Error(`${path}: ${status}`);
  return performance.now() - started;
}

/** What `act` gives for 0, 1, …; as many at a time as clients are. */
async function atOnce<T>(times: number, act: (n: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  const client = async () => {
    for (let n = next++; n < times; n = next++) results[n] = await act(n);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, client));
  return results;
}

/** The jobs, one after the other with two at a time, and the faults as their moments come. */
import { setTimeout as pause } from "node:timers/promises";
import { ChaosJob, type Corpus, divide, formatOf } from "./jobs.ts";
import { KINDS, type KindName, type Place, type PlannedFault } from "./plan.ts";
import type { Recoveries } from "./recoveries.ts";
import { strike } from "./strike.ts";
import type { World } from "./world.ts";

const JOBS_AT_ONCE = 2;
const LOOK_MS = 200;
/** Without a row, and with no fault at work: longer than the longest pause between two attempts, and then some. */
const STUCK_SECONDS = 240;

interface Run {
  world: World;
  corpus: Corpus;
  records: number;
  plan: PlannedFault[];
  recoveries: Recoveries;
  say(line: string): void;
  signal: AbortSignal;
}

/** Returns when every job has ended and every fault is over; or when nothing moves, with what is stuck. */
export async function runUnderFaults({ world, corpus, records, plan, recoveries, say, signal }: Run) {
  const sizes = divide(records);
  const jobs: ChaosJob[] = [];
  const struck: Partial<Record<KindName, number>> = {};
  const busy = new Set<Place>();
  const atWork = new Set<Promise<void>>();
  const failures: string[] = [];
  const waiting = [...plan];
  let rows = 0;
  let movedAt = performance.now();

  const begin = (fault: PlannedFault) => {
    const { n, kind, place, seconds, point } = fault;
    const isArmed = point !== null;
    const gaps = () => jobs.flatMap((job) => job.gaps.map((shard) => ({ job, shard })));
    const before = gaps();
    say(
      `${rows}/${records} rows: fault ${n}: ${place}: ${point ?? KINDS[kind].what}${seconds > 0 ? `, ${seconds.toFixed(1)} s` : ""}`,
    );
    if (!isArmed) busy.add(place);
    const done: Promise<void> = strike(world, fault, () => atWork.add(done))
      .then(() => {
        struck[kind] = (struck[kind] ?? 0) + 1;
        if (isArmed) say(`${rows}/${records} rows: fault ${n} has struck at its point, and is over`);
        recoveries.begin(kind, rows, isArmed ? gaps() : before, performance.now());
        movedAt = performance.now();
      })
      .catch((thrown: Error) => void failures.push(`fault ${n}, ${kind}: ${thrown.message}`))
      .finally(() => {
        busy.delete(place);
        atWork.delete(done);
      });
    // One at a fault point may never be reached.
    if (!isArmed) atWork.add(done);
  };

  for (;;) {
    signal.throwIfAborted();
    const open = jobs.filter(({ ended }) => ended === null);
    await Promise.all(open.map((job) => job.look()));
    const now = performance.now();
    const committed = jobs.reduce((sum, job) => sum + job.rows, 0);
    if (committed > rows) movedAt = now;
    rows = committed;
    recoveries.look(rows, now);
    // In their order: one whose place is still struck by another waits, and those after it.
    const next = waiting[0];
    if (next && next.at <= rows && !busy.has(next.place)) begin(waiting.shift()!);
    if (failures.length > 0) return { jobs, struck, stuck: failures };
    const unended = jobs.filter(({ ended }) => ended === null);
    for (let more = JOBS_AT_ONCE - unended.length; more > 0 && jobs.length < sizes.length; more--) {
      const n = jobs.length;
      jobs.push(await ChaosJob.submit(world, corpus, `job-${n}`, sizes[n]!, formatOf(n)));
      movedAt = performance.now();
    }
    const failed = jobs.filter(({ ended }) => ended !== null && ended !== "finished");
    const isOver = jobs.every(({ ended }) => ended !== null) && waiting.length === 0 && atWork.size === 0;
    if (isOver || failed.length > 0)
      return { jobs, struck, stuck: failed.map(({ id, ended, reason }) => `${id} has ${ended}: ${reason}`) };
    if (now - movedAt > STUCK_SECONDS * 1_000 && atWork.size === 0) {
      const stuck = unended.map(({ id, rows, records }) => `${id} is stuck at ${rows} of ${records} rows`);
      return { jobs, struck, stuck };
    }
    await pause(LOOK_MS, undefined, { signal });
  }
}

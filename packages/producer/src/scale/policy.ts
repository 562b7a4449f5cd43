/**
 * How many workers are wanted: one pure function, which the API, the metrics and the simulator call.
 *
 *   enough to do what is left within the drain time; a worker that is still to start has that much less of it
 *   one where the length of the work is not known, or where a blocked job needs one to probe
 *   no more than there are shards
 *   no fewer than have a shard in hand
 *
 * The last is what makes a drain end in time. Going by the backlog alone, half of the workers would be sent away when half
 * of it is done, and the end would never come nearer. Keeping them costs nothing: a worker-second costs the same now as later,
 * and a shard in hand would be done twice.
 *
 * What is wanted follows the backlog at once, in both directions. That it does not flap is left to the autoscaler: KEDA's goes
 * by the highest figure of its stabilisation window (300 s), which covers workers that are starting, or between two shards.
 */
import type { Load } from "@capfleet/shared/queues";

/** The live workers that may do the work. */
export interface Pool {
  live: number;
  /** Of these, those with a shard in hand. */
  busy: number;
}

export interface Target {
  /** How long what is left should take. */
  drainSeconds: number;
  /** What passes until a worker that is asked for takes its first shard; less than `drainSeconds`. */
  startupSeconds: number;
}

/** `loads`: of each set of engines that the pool serves. */
export function wantedWorkers(
  loads: readonly Load[],
  { live, busy }: Pool,
  { drainSeconds, startupSeconds }: Target,
): number {
  const seconds = sum(loads.map((load) => load.seconds));
  const shards = sum(loads.map((load) => load.shards));
  const isUnknown = loads.some(({ unknown }) => unknown > 0);
  const isProbing = loads.some(({ probes }) => probes > 0);

  const beyond = seconds - live * drainSeconds;
  const needed =
    beyond > 0 ? live + Math.ceil(beyond / (drainSeconds - startupSeconds)) : Math.ceil(seconds / drainSeconds);
  const wanted = Math.max(needed, isUnknown || isProbing ? 1 : 0);
  // A shard is one worker's. What is being planned has none yet, and may want its first.
  return Math.max(Math.min(wanted, Math.max(1, shards)), busy);
}

const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);

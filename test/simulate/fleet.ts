/**
 * A simulated fleet under the real policy, a second at a time: jobs come, workers start, take shards, finish them, are lost and
 * sent away. Dispatch is as capfleet does it: a worker has two shards in hand, whoever is told to stop finishes what it can
 * within the grace period and puts the rest back, and those with the least in hand go first. Planning, Redis and storage take
 * no time here, and all workers are equally fast.
 */
import { DEFAULT_SHARD_SIZE, MIN_SHARD_SIZE } from "@capfleet/shared/contract";
import { type Target, wantedWorkers } from "../../packages/producer/src/scale/policy.ts";
import { ASK_SECONDS, Autoscaler } from "./autoscaler.ts";

const SLOTS = 2;
const GRACE_SECONDS = 25;
/** A small job gets smaller shards. */
const SHARDS_WANTED = 8;

export interface Scenario {
  name: string;
  seconds: number;
  /** Jobs. */
  arrivals: { at: number; records: number }[];
  /** What passes until a worker that was asked for takes shards; it is paid for meanwhile. */
  startupSeconds: number;
  /** Mean life of a worker on a spot machine; null: none is taken away. */
  spotLifeSeconds: number | null;
}

export interface Fleet {
  /** Images a second of one worker. */
  rate: number;
  target: Target;
  maxWorkers: number;
  /** Of chance. */
  seed: number;
}

export interface Sample {
  at: number;
  live: number;
  starting: number;
  wanted: number;
  /** Records that are not committed. */
  backlog: number;
  /** Worker-hours paid so far. */
  paid: number;
}

export interface Outcome {
  samples: Sample[];
  /** From the arrival of the largest job until nothing was left; NaN where something was. */
  drainSeconds: number;
  paidHours: number;
  /** Of what was paid for: waiting for work, and starting. */
  idleShare: number;
  startingShare: number;
  lost: number;
  /** Rows that were labelled and had to be labelled again, as a share of all. */
  againShare: number;
}

interface Worker {
  readyAt: number;
  /** Null: it is not going. */
  endsAt: number | null;
  /** Shards in hand. */
  hand: Shard[];
}

interface Shard {
  rows: number;
  /** Not labelled yet. */
  left: number;
}

export function simulate(scenario: Scenario, { rate, target, maxWorkers, seed }: Fleet): Outcome {
  const chance = random(seed);
  const autoscaler = new Autoscaler(maxWorkers);
  const samples: Sample[] = [];
  const arrivals = [...scenario.arrivals];
  const total = sum(arrivals.map(({ records }) => records));
  const largest = arrivals.reduce((most, next) => (next.records > most.records ? next : most));
  let workers: Worker[] = [];
  const queue: Shard[] = [];
  let [paid, idle, starting, lost, again] = [0, 0, 0, 0, 0];

  for (let now = 0; now < scenario.seconds; now++) {
    for (; arrivals[0] && arrivals[0].at <= now; arrivals.shift()) queue.push(...cut(arrivals[0].records));

    // Lost machines are told so, and leave as those do that are sent away.
    const hazard = scenario.spotLifeSeconds === null ? 0 : 1 / scenario.spotLifeSeconds;
    for (const worker of workers) {
      if (worker.endsAt !== null || chance() >= hazard) continue;
      worker.endsAt = now + GRACE_SECONDS;
      lost += 1;
    }
    const staying = () => workers.filter(({ endsAt }) => endsAt === null);
    const live = staying().filter(({ readyAt }) => readyAt <= now);
    const open = [...queue, ...workers.flatMap(({ hand }) => hand)];
    const backlog = leftOf(open);
    const busy = live.filter(({ hand }) => hand.length > 0).length;
    const load = { records: backlog, shards: open.length, seconds: backlog / rate, unknown: 0, probes: 0 };
    const wanted = wantedWorkers([load], { live: live.length, busy }, target);
    if (now % ASK_SECONDS === 0) autoscaler.ask(now, wanted);
    // Kubernetes replaces what was lost at once, and ends those first that are not ready or have the lowest deletion cost.
    for (let n = staying().length; n < autoscaler.replicas; n++)
      workers.push({ readyAt: now + scenario.startupSeconds, endsAt: null, hand: [] });
    const surplus = Math.max(0, staying().length - autoscaler.replicas);
    const cost = ({ readyAt, hand }: Worker) => (readyAt > now ? -1 : labelledOf(hand));
    for (const worker of staying()
      .sort((a, b) => cost(a) - cost(b) || a.hand.length - b.hand.length)
      .slice(0, surplus))
      worker.endsAt = now + GRACE_SECONDS;

    for (const worker of workers) {
      paid += 1;
      if (worker.readyAt > now) {
        starting += 1;
        continue;
      }
      if (worker.endsAt === null)
        while (worker.hand.length < SLOTS && queue.length > 0) worker.hand.push(queue.shift()!);
      if (worker.hand.length === 0) idle += 1;
      const each = rate / worker.hand.length;
      for (const shard of worker.hand) shard.left -= each;
      worker.hand = worker.hand.filter(({ left }) => left > 0);
    }
    for (const { hand } of workers.filter(({ endsAt }) => endsAt !== null && endsAt <= now)) {
      again += labelledOf(hand);
      // A shard that goes back is whole again, and the next.
      queue.unshift(...hand.map(({ rows }) => ({ rows, left: rows })));
    }
    // Who has nothing left in hand need not wait for the end of its grace.
    workers = workers.filter(({ endsAt, hand }) => endsAt === null || (endsAt > now && hand.length > 0));

    const left = leftOf([...queue, ...workers.flatMap(({ hand }) => hand)]);
    samples.push({
      at: now,
      live: workers.filter(({ readyAt }) => readyAt <= now).length,
      starting: workers.filter(({ readyAt }) => readyAt > now).length,
      wanted,
      backlog: left,
      paid: paid / 3_600,
    });
  }
  const first = samples.findIndex(({ at, backlog }) => at > largest.at && backlog === 0);
  return {
    samples,
    drainSeconds: first < 0 ? Number.NaN : samples[first]!.at + 1 - largest.at,
    paidHours: paid / 3_600,
    idleShare: idle / paid,
    startingShare: starting / paid,
    lost,
    againShare: again / total,
  };
}

/** As the planner does it. */
function cut(records: number): Shard[] {
  const size = Math.min(DEFAULT_SHARD_SIZE, Math.max(MIN_SHARD_SIZE, Math.ceil(records / SHARDS_WANTED)));
  const rows = [...Array<number>(Math.floor(records / size)).fill(size), records % size];
  return rows.filter((count) => count > 0).map((count) => ({ rows: count, left: count }));
}

const leftOf = (shards: readonly Shard[]) => sum(shards.map(({ left }) => left));
const labelledOf = (shards: readonly Shard[]) => sum(shards.map(({ rows, left }) => rows - left));
const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);

/** mulberry32: the same numbers from 0 to 1 each time. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

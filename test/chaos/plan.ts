/**
 * Which faults, where, and when: all of it from the seed. Moments are counts of committed rows, not times, so that the same
 * seed means the same faults at the same progress on a slow machine and on a fast one.
 */
import type { FaultPoint } from "@capfleet/shared/faults";

export const WORKERS = ["worker-1", "worker-2"] as const;
export type ProcessName = "producer" | (typeof WORKERS)[number];
export type Place = ProcessName | "redis" | "store";

interface Kind {
  /** What it strikes; one of them, where there are several. */
  places: readonly Place[];
  /** Seconds that it lasts. Without: it is over at once. */
  lasts?: readonly [least: number, most: number];
  what: string;
}

/** Locks and leases last 10 s: who stands still for longer has lost them. */
const PAST_THE_LOCK = [11, 14] as const;
const A_WHILE = [1, 4] as const;

export const KINDS = {
  "worker-kill": { places: WORKERS, what: "SIGKILL" },
  "worker-stop": { places: WORKERS, lasts: PAST_THE_LOCK, what: "SIGSTOP past the locks of its shards" },
  "worker-term": { places: WORKERS, what: "SIGTERM, as when a new version is rolled out" },
  "worker-point": { places: WORKERS, what: "SIGKILL at a fault point" },
  "worker-point-stop": { places: WORKERS, lasts: PAST_THE_LOCK, what: "SIGSTOP at a fault point, past the lock" },
  "worker-partition": { places: WORKERS, lasts: [2, 14], what: "its network namespace is cut off" },
  "worker-disk-full": { places: WORKERS, lasts: A_WHILE, what: "no room in its TMPDIR" },
  "producer-kill": { places: ["producer"], what: "SIGKILL" },
  "producer-stop": { places: ["producer"], lasts: PAST_THE_LOCK, what: "SIGSTOP past its lease" },
  "producer-point": { places: ["producer"], what: "SIGKILL at a fault point" },
  "producer-partition": { places: ["producer"], lasts: [2, 14], what: "its network namespace is cut off" },
  "redis-kill": { places: ["redis"], lasts: [0.5, 3], what: "SIGKILL; started again, it is empty" },
  "redis-empty": { places: ["redis"], what: "FLUSHALL" },
  "redis-full": { places: ["redis"], lasts: A_WHILE, what: "out of memory: it refuses every write" },
  "redis-slow": { places: ["redis"], lasts: A_WHILE, what: "nine tenths of the time it answers nobody" },
  "redis-hung": { places: ["redis"], lasts: [2, 8], what: "SIGSTOP" },
  "store-500": { places: ["store"], lasts: A_WHILE, what: "500" },
  "store-503": { places: ["store"], lasts: A_WHILE, what: "503" },
  "store-reset": { places: ["store"], lasts: A_WHILE, what: "connections are reset" },
  "store-lost": { places: ["store"], lasts: A_WHILE, what: "requests are done, their answers lost" },
  "store-truncated": { places: ["store"], lasts: A_WHILE, what: "bodies break off in the middle" },
  "store-race": { places: ["store"], lasts: A_WHILE, what: "another writer is always quicker: 412" },
  "store-silent": { places: ["store"], lasts: [2, 6], what: "no answers; one time in ten for a minute" },
} as const satisfies Record<string, Kind>;
export type KindName = keyof typeof KINDS;
export const KIND_NAMES = Object.keys(KINDS) as KindName[];

/**
 * Those that a caption job passes. Not those of a single record: where a shard is done record by record in a process of its
 * own, what dies there is held against the record, as it should be.
 */
const WORKER_POINTS: FaultPoint[] = [
  "worker.shard.taken",
  "worker.intent.read",
  "worker.input.read",
  "worker.data.written",
  "worker.commit.before",
  "worker.commit.after",
  "worker.report.after",
];
const PRODUCER_POINTS: FaultPoint[] = [
  "planner.shard.written",
  "planner.plan.before",
  "planner.plan.after",
  "reconciler.leased",
  "reconciler.reports.taken",
  "reconciler.fill.before",
  "reconciler.fill.after",
  "reconciler.rollup.written",
  "finisher.begun",
  "finisher.swept",
  "finisher.summary.written",
  "finisher.success.written",
  "finisher.state.written",
  "job.state.before",
  "job.state.after",
];
/** Passed often enough that a later time is worth waiting for. */
const OFTEN = /^(worker|planner\.shard|reconciler\.(leased|reports|fill))/;

export interface PlannedFault {
  /** From 1. */
  n: number;
  kind: KindName;
  place: Place;
  /** Committed rows at which it strikes. */
  at: number;
  /** 0 where it is over at once. */
  seconds: number;
  /** In CAPFLEET_FAULTS's words; null where it is of another kind. */
  point: string | null;
  /** Every how manieth request has the store's trouble. */
  every: number;
}

/** `kinds`: those that this machine can do. All rows but the last tenth see faults, so that each has rows after it. */
export function planFaults(faults: number, seed: number, rows: number, kinds: readonly KindName[]): PlannedFault[] {
  const random = new Random(seed);
  const bag: KindName[] = [];
  return Array.from({ length: faults }, (_, i) => {
    // Each kind once, in any order, before one comes again.
    if (bag.length === 0) bag.push(...random.shuffled(kinds));
    const kind = bag.pop()!;
    const { places, lasts }: Kind = KINDS[kind];
    const place = random.pick(places);
    let seconds = lasts ? random.between(...lasts) : 0;
    if (kind === "store-silent" && random.next() < 0.1) seconds = 60;
    return {
      n: i + 1,
      kind,
      place,
      at: Math.floor(((i + random.next()) / faults) * 0.9 * rows),
      seconds,
      point: pointOf(kind, random),
      every: kind === "store-silent" ? 1 : random.pick([1, 1, 2, 3]),
    };
  });
}

function pointOf(kind: KindName, random: Random): string | null {
  if (!kind.includes("point")) return null;
  const point = random.pick(kind === "producer-point" ? PRODUCER_POINTS : WORKER_POINTS);
  const nth = OFTEN.test(point) ? 1 + Math.floor(random.next() * 4) : 1;
  return `${point}=${kind === "worker-point-stop" ? "stop" : "kill"}@${nth}`;
}

/** Mulberry32: small, and the same everywhere. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Below 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  between(least: number, most: number): number {
    return least + this.next() * (most - least);
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.next() * from.length)]!;
  }

  shuffled<T>(items: readonly T[]): T[] {
    const order = [...items];
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(this.next() * (i + 1));
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}

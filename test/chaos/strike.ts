/** How each kind of fault is done to the world. */
import { setTimeout as pause } from "node:timers/promises";
import type { Trouble } from "../support/flaky-proxy.ts";
import type { KindName, PlannedFault, ProcessName, WORKERS } from "./plan.ts";
import type { World } from "./world.ts";

/** Of a Redis that is slow: it stands still so long, and then works so long. */
const STILL_MS = 450;
const AT_WORK_MS = 50;
const REFILL_MS = 100;

/**
 * Returns when the fault is over. One at a fault point begins when its process gets there, which may be never: `reached` is
 * called then.
 */
export function strike(world: World, fault: PlannedFault, reached: () => void): Promise<void> {
  return STRIKES[fault.kind](world, fault, reached);
}

type Strike = (world: World, fault: PlannedFault, reached: () => void) => Promise<void>;

const lasts = ({ seconds }: PlannedFault) => pause(seconds * 1_000);
const processOf = ({ processes }: World, { place }: PlannedFault) => processes.get(place as ProcessName)!;

const signal =
  (name: NodeJS.Signals): Strike =>
  async (world, fault) =>
    processOf(world, fault).signal(name);

const stop: Strike = async (world, fault) => {
  const { pid } = processOf(world, fault);
  processOf(world, fault).signal("SIGSTOP");
  await lasts(fault);
  // It may have been started again since.
  if (processOf(world, fault).pid === pid) processOf(world, fault).signal("SIGCONT");
};

const point: Strike = async (world, fault, reached) => {
  const process = processOf(world, fault);
  await new Promise<void>((resolve) => process.arm(fault.point!, resolve));
  reached();
  if (fault.seconds === 0) return;
  await lasts(fault);
  process.signal("SIGCONT");
};

const partition: Strike = async ({ namespaces }, fault) => {
  await namespaces!.cut(fault.place);
  await lasts(fault);
  await namespaces!.mend(fault.place);
};

/** Room that others give back is taken as well, for as long as it lasts. */
const fillDisk: Strike = async ({ disks }, { place, seconds }) => {
  const disk = disks.get(place as (typeof WORKERS)[number])!;
  const end = performance.now() + seconds * 1_000;
  do {
    await disk.fill();
    await pause(REFILL_MS);
  } while (performance.now() < end);
  await disk.clear();
};

const trouble =
  (kind: Trouble): Strike =>
  async ({ proxy }, fault) => {
    Object.assign(proxy!, { trouble: kind, every: fault.every });
    await lasts(fault);
    proxy!.trouble = null;
  };

const STRIKES: Record<KindName, Strike> = {
  "worker-kill": signal("SIGKILL"),
  "worker-stop": stop,
  "worker-term": signal("SIGTERM"),
  "worker-point": point,
  "worker-point-stop": point,
  "worker-partition": partition,
  "worker-disk-full": fillDisk,
  "producer-kill": signal("SIGKILL"),
  "producer-stop": stop,
  "producer-point": point,
  "producer-partition": partition,
  "redis-kill": async ({ redis }, fault) => {
    await redis.kill();
    await lasts(fault);
    await redis.start();
  },
  "redis-empty": (world) => world.onRedis(async (redis) => void (await redis.flushall())),
  "redis-full": (world, fault) =>
    world.onRedis(async (redis) => {
      await redis.config("SET", "maxmemory", "1");
      await lasts(fault);
      await redis.config("SET", "maxmemory", "0");
    }),
  "redis-slow": async ({ redis }, { seconds }) => {
    const end = performance.now() + seconds * 1_000;
    while (performance.now() < end) {
      redis.signal("SIGSTOP");
      await pause(STILL_MS);
      redis.signal("SIGCONT");
      await pause(AT_WORK_MS);
    }
  },
  "redis-hung": async ({ redis }, fault) => {
    redis.signal("SIGSTOP");
    await lasts(fault);
    redis.signal("SIGCONT");
  },
  "store-500": trouble("500"),
  "store-503": trouble("503"),
  "store-reset": trouble("reset"),
  "store-lost": trouble("lost"),
  "store-truncated": trouble("truncated"),
  "store-race": trouble("race"),
  "store-silent": trouble("silent"),
};

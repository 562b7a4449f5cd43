/** What is said of a job as it starts: how long, and how much. */
import type { JobFile } from "@capfleet/shared/contract";
import { engineSet, liveWorkers, servedSets } from "@capfleet/shared/queues";
import type { Store, Stores } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { amount, duration, plural } from "../cli/format.ts";
import { countWithin } from "./count.ts";
import { estimate, rateOf } from "./estimate.ts";
import { readRates } from "./rates.ts";

/** Nobody waits longer for a guess. */
const COUNT_MS = 2_000;

export interface Workforce {
  workers: number;
  /** Of a worker; null: not known. */
  pricePerHour: number | null;
}

/** One line; null where no rate is known, or anything is in the way: a job starts without it as well. */
export async function foretell(
  { spec }: JobFile,
  { workers, pricePerHour }: Workforce,
  { state, stores }: { state: Store; stores: Stores },
): Promise<string | null> {
  try {
    const rates = await readRates(engineSet(spec.engines), spec.task.name, state);
    const rate = rates && rateOf(rates);
    if (!rate) return null;
    const { records, isWhole } = await countWithin(spec.input, stores, { withinMs: COUNT_MS });
    const images = Math.min(records, spec.limit ?? records);
    if (images === 0) return null;
    const { seconds, cost } = estimate({ images, workers, rate, pricePerHour });
    // What is not counted yet comes on top.
    const about = isWhole || images === spec.limit ? "about" : "more than";
    const parts = [`${about} ${duration(seconds)} on ${plural(workers, "worker")}`];
    if (cost !== null) parts.push(`${about} ${amount(cost)}`);
    return `${parts.join(", ")}, going by ${rate.source}`;
  } catch {
    return null;
  }
}

/** The live workers that can do the job; one, where there is none yet. */
export async function workforce({ spec }: JobFile, redis: Redis | null): Promise<Workforce> {
  const engines = engineSet(spec.engines);
  const live = redis ? await liveWorkers(redis).catch(() => []) : [];
  const able = live.filter((worker) => servedSets(worker.engines).includes(engines));
  const prices = able.flatMap(({ pricePerHour }) => pricePerHour ?? []);
  const mean = prices.reduce((a, b) => a + b, 0) / prices.length;
  return { workers: Math.max(1, able.length), pricePerHour: prices.length > 0 ? mean : null };
}

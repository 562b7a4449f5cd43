/** How long a job would take and what it would cost, and what that supposes. */
import { count, plural } from "../cli/format.ts";
import type { Rates } from "./rates.ts";

export interface Rate {
  /** Rows a second of one worker. */
  perWorker: number;
  /** Null: not known. */
  pricePerHour: number | null;
  /** Where it was measured; null: it was given. */
  source: string | null;
}

/** Of the jobs that ran where the last one did. Null where there is none. `hasNames`: the source may name a job. */
export function rateOf({ jobs }: Rates, hasNames = true): Rate | null {
  const last = jobs.at(-1);
  if (!last) return null;
  const on = last.machines.join(", ");
  const alike = jobs.filter(({ machines }) => machines.join(", ") === on);
  const rows = sum(alike.map((job) => job.rows));
  const seconds = sum(alike.map(({ workerSeconds }) => workerSeconds));
  const { pricePerHour = null } = alike.findLast((job) => job.pricePerHour !== null) ?? {};
  const when = `${hasNames ? `${last.job}, ` : ""}${last.measured.slice(0, 10)}`;
  const jobText = alike.length === 1 ? when : `${alike.length} jobs, the last ${when}`;
  const source = `${plural(rows, "row")} (${jobText})${on ? ` on ${on}` : ""}`;
  return { perWorker: rows / seconds, pricePerHour, source };
}

export interface Question {
  images: number;
  workers: number;
  rate: Rate;
  /** Of a worker; null: the rate's. */
  pricePerHour: number | null;
}

export interface Estimate {
  images: number;
  workers: number;
  /** Images a second. */
  ratePerWorker: number;
  seconds: number;
  workerHours: number;
  /** Amounts are null where no price is known. */
  pricePerHour: number | null;
  cost: number | null;
  per1000: number | null;
  /** Sentences. */
  assumed: string[];
}

export function estimate({ images, workers, rate, pricePerHour: given }: Question): Estimate {
  const workerHours = images / rate.perWorker / 3_600;
  const pricePerHour = given ?? rate.pricePerHour;
  const cost = pricePerHour === null ? null : workerHours * pricePerHour;
  return {
    images,
    workers,
    ratePerWorker: rate.perWorker,
    seconds: (workerHours / workers) * 3_600,
    workerHours,
    pricePerHour,
    cost,
    per1000: cost === null ? null : (cost / images) * 1_000,
    assumed: [
      rate.source === null
        ? "the rate of one worker is the one that was given"
        : `the rate of one worker is that of ${rate.source}; images, texts and options are like those`,
      `${plural(workers, "worker")} at work all the time, each as fast as one alone`,
      "starting workers, loading models, pauses and retries are not counted",
      ...(given === null && pricePerHour !== null ? [`a worker costs ${count(pricePerHour)} an hour, as then`] : []),
      ...(pricePerHour === null ? ["a worker has no price (CAPFLEET_PRICE_PER_HOUR)"] : []),
    ],
  };
}

const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);

/** The answer to `capfleet plan` and to POST /v1/plan. */
import { CapfleetError, type EngineRef, type JobTask } from "@capfleet/shared/contract";
import { engineSet } from "@capfleet/shared/queues";
import type { Store, Stores } from "@capfleet/shared/storage";
import { type Counting, countInput } from "./count.ts";
import { type Estimate, estimate, type Rate, rateOf } from "./estimate.ts";
import { readRates } from "./rates.ts";

export interface PlanQuestion {
  task: JobTask;
  /** Of the models, in the order of the task's roles. Not called where a rate is given. */
  engines(): Promise<EngineRef[]>;
  /** How many, or where they are. */
  images: number | { input: string; counting: Counting };
  workers: number;
  /** Null: what workers had that were measured. */
  pricePerHour: number | null;
  /** Images a second of one worker; null: as measured. */
  rate: number | null;
  /** Whether whoever asks may know of all jobs. */
  seesJobs: boolean;
}

/** Throws RATE_UNKNOWN, what counting the input throws, and what `engines` throws. */
export async function answerPlan(question: PlanQuestion, stores: Stores, state: Store): Promise<Estimate> {
  const { rate: given, images, workers, pricePerHour } = question;
  const rate = given === null ? await measuredRate(question, state) : givenRate(given);
  const number = typeof images === "number" ? images : await countInput(images.input, stores, images.counting);
  return estimate({ images: number, workers, rate, pricePerHour });
}

const givenRate = (perWorker: number): Rate => ({ perWorker, pricePerHour: null, source: null });

async function measuredRate({ task, engines: find, seesJobs }: PlanQuestion, state: Store): Promise<Rate> {
  const engines = await find();
  const rates = await readRates(engineSet(engines), task, state);
  const rate = rates && rateOf(rates, seesJobs);
  if (rate) return rate;
  const names = engines.map(({ model, precision }) => `${model} (${precision})`).join(" and ");
  throw new CapfleetError("RATE_UNKNOWN", `no job has measured how fast a worker does "${task}" with ${names}`);
}

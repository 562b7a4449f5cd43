/**
 * `<state>/rates/<engines>.<task>.json`: how fast jobs were labelled, for `plan` and for estimates. An entry per job, and
 * the last jobs only.
 */
import { CAPFLEET_VERSION, engineRefSchema, JOB_TASKS, SCHEMA_VERSION, stateLayout } from "@capfleet/shared/contract";
import { engineSet } from "@capfleet/shared/queues";
import type { Store } from "@capfleet/shared/storage";
import * as z from "zod";

/** Jobs that one object remembers. */
const MAX_JOBS = 10;

const measuredSchema = z.object({
  job: z.string(),
  /** When the job ended. */
  measured: z.iso.datetime(),
  rows: z.number().int(),
  workerSeconds: z.number(),
  /** The mean over the time of workers that had one; null: none had. */
  pricePerHour: z.number().nullable(),
  /** What it ran on: `cpu (AMD EPYC 9R14)`. */
  machines: z.array(z.string()),
  capfleet: z.string(),
});
export type Measured = z.infer<typeof measuredSchema>;

const ratesSchema = z.object({
  schema: z.literal(SCHEMA_VERSION),
  task: z.enum(JOB_TASKS),
  engines: z.array(engineRefSchema.pick({ model: true, precision: true, digest: true })),
  /** The latest last. */
  jobs: z.array(measuredSchema),
});
export type Rates = z.infer<typeof ratesSchema>;

/** Adds a job, or changes its entry. Throws the store's errors. */
export async function recordRate(
  { task, engines }: Pick<Rates, "task" | "engines">,
  measured: Omit<Measured, "capfleet">,
  state: Store,
): Promise<void> {
  const key = stateLayout.rate(engineSet(engines), task);
  for (;;) {
    const there = (await state.stat(key)) ? await state.read(key) : null;
    const known = there && parseRates(there.bytes);
    const others = known?.jobs.filter(({ job }) => job !== measured.job) ?? [];
    const rates: Rates = {
      schema: SCHEMA_VERSION,
      task,
      engines: engines.map(({ model, precision, digest }) => ({ model, precision, digest })),
      jobs: [...others, { ...measured, capfleet: CAPFLEET_VERSION }].slice(-MAX_JOBS),
    };
    const body = JSON.stringify(rates, null, 2);
    const put = there ? await state.putIfMatch(key, body, there.etag) : await state.putIfAbsent(key, body);
    if (put.outcome === "written") return;
  }
}

/** Null where nothing has been measured. Throws the store's errors. */
export async function readRates(engines: string, task: string, state: Store): Promise<Rates | null> {
  const key = stateLayout.rate(engines, task);
  return (await state.stat(key)) ? parseRates((await state.read(key)).bytes) : null;
}

/** Null for what another version wrote. */
function parseRates(bytes: Buffer): Rates | null {
  try {
    return ratesSchema.parse(JSON.parse(bytes.toString("utf8")));
  } catch {
    return null;
  }
}

/** What labelling took: worker-seconds, and what they cost. Sums of measurements; `costOf` makes of them what is shown. */
import * as z from "zod";

export const workSchema = z.object({
  /** Rows that workers labelled and told the time of; those of a retry count again. */
  rows: z.number().int(),
  /** Worker-seconds that they took. */
  seconds: z.number(),
  /** Of these, those of workers that have a price, and what they cost, in the currency that prices are given in. */
  pricedSeconds: z.number(),
  cost: z.number(),
  /** Rows that were labelled as well, and whose time is not known: the report was lost with Redis, or had none. */
  untimed: z.number().int(),
  /** Of `rows`, those that were not timed either, and are taken to be like the others; see `settle`. */
  guessed: z.number().int(),
});
export type Work = z.infer<typeof workSchema>;

export const NO_WORK: Work = { rows: 0, seconds: 0, pricedSeconds: 0, cost: 0, untimed: 0, guessed: 0 };

export const addWork = (a: Work, b: Work): Work => ({
  rows: a.rows + b.rows,
  seconds: a.seconds + b.seconds,
  pricedSeconds: a.pricedSeconds + b.pricedSeconds,
  cost: a.cost + b.cost,
  untimed: a.untimed + b.untimed,
  guessed: a.guessed + b.guessed,
});

/** Takes the rows of an attempt that were not timed to be like those that were; where none was, they stay. */
export function settle(work: Work): Work {
  const { rows, untimed, guessed } = work;
  if (rows === 0 || untimed === 0) return work;
  return { ...scaled(work, (rows + untimed) / rows), rows: rows + untimed, untimed: 0, guessed: guessed + untimed };
}

const scaled = (work: Work, by: number): Work => ({
  ...work,
  seconds: work.seconds * by,
  pricedSeconds: work.pricedSeconds * by,
  cost: work.cost * by,
});

/** What a worker tells of a shard that it has committed. */
export const timedSchema = z.object({
  /** Rows that it labelled: of a shard that is done again, not those that stay. */
  rows: z.number().int(),
  /** Of its time: what passes while several shards are in its hands is divided among them. */
  seconds: z.number().min(0),
  /** Null: it has none. */
  pricePerHour: z.number().min(0).nullable(),
  device: z.string(),
  /** What the machine calls its CPU. */
  cpu: z.string(),
});
export type Timed = z.infer<typeof timedSchema>;

export const workOf = ({ rows, seconds, pricePerHour }: Timed): Work => ({
  rows,
  seconds,
  pricedSeconds: pricePerHour === null ? 0 : seconds,
  cost: ((pricePerHour ?? 0) * seconds) / 3_600,
  untimed: 0,
  guessed: 0,
});

export const costSchema = z.object({
  workerSeconds: z.number(),
  /** So far; null where no worker has had a price. Time of those that have none counts nothing. */
  spent: z.number().nullable(),
  /** Per 1,000 rows of the job, whatever it took to get them. */
  per1000: z.number().nullable(),
  /** Of the whole job; null while its length is not known. */
  estimated: z.number().nullable(),
  /** Part of the work was not timed: it is taken to be like the rest. */
  isEstimate: z.boolean(),
});
export type Cost = z.infer<typeof costSchema>;

/**
 * `done`: rows of the job that are labelled; `left`: those that are not, null where that is not known. Null where nothing
 * has been measured.
 */
export function costOf(work: Work, done: number, left: number | null): Cost | null {
  const { rows, seconds, pricedSeconds, cost, guessed } = settle(work);
  if (rows === 0) return null;
  const spent = pricedSeconds > 0 ? cost : null;
  const whole = spent === null ? null : spent + (spent / rows) * (left ?? 0);
  const all = done + (left ?? 0);
  return {
    workerSeconds: seconds,
    spent,
    per1000: whole === null || all === 0 ? null : (whole / all) * 1_000,
    estimated: left === null ? null : whole,
    isEstimate: guessed > 0,
  };
}

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
});
export type Work = z.infer<typeof workSchema>;

export const NO_WORK: Work = { rows: 0, seconds: 0, pricedSeconds: 0, cost: 0, untimed: 0 };

export const addWork = (a: Work, b: Work): Work => ({
  rows: a.rows + b.rows,
  seconds: a.seconds + b.seconds,
  pricedSeconds: a.pricedSeconds + b.pricedSeconds,
  cost: a.cost + b.cost,
  untimed: a.untimed + b.untimed,
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
  if (work.rows === 0) return null;
  const labelled = work.rows + work.untimed;
  const scale = labelled / work.rows;
  const spent = work.pricedSeconds > 0 ? work.cost * scale : null;
  const whole = spent === null ? null : spent + (spent / labelled) * (left ?? 0);
  const rows = done + (left ?? 0);
  return {
    workerSeconds: work.seconds * scale,
    spent,
    per1000: whole === null || rows === 0 ? null : (whole / rows) * 1_000,
    estimated: left === null ? null : whole,
    isEstimate: work.untimed > 0,
  };
}

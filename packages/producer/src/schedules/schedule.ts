/** `<state>/schedules/<name>.json`: what is to be done, when, and what has become of it. Changed with If-Match. */
import {
  CapfleetError,
  formatSchema,
  jobTaskSpecSchema,
  laneSchema,
  precisionSchema,
  SCHEMA_VERSION,
  stateLayout,
} from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";
import * as z from "zod";
import { targetSchema } from "../webhooks/webhook.ts";

const time = z.iso.datetime();
const reasonSchema = z.object({ code: z.string(), message: z.string() });

/** An AskedJob, with locations that mean the same wherever the producer runs. */
const scheduledJobSchema = z.object({
  request: z.object({
    task: jobTaskSpecSchema,
    input: z.string(),
    columns: z.object({
      image: z.string().exactOptional(),
      id: z.string().exactOptional(),
      keep: z.array(z.string()).exactOptional(),
    }),
    output: z.string(),
    limit: z.int().nullable(),
    shardSize: z.int().nullable(),
    format: formatSchema,
    lane: laneSchema,
    maxErrorRate: z.number(),
    readable: z.array(z.string()).nullable(),
    runner: z.literal("fleet"),
    incremental: z.boolean(),
  }),
  models: z.array(z.string()),
  precision: precisionSchema.nullable(),
  /** Told of every run's job. */
  webhook: targetSchema.nullable().default(null),
});

const runSchema = z.object({
  /** When it was due, or asked for. */
  due: time,
  /** Below `<out>/runs/`. It follows from `due`: a start that is repeated finds what the last one has made. */
  name: z.string(),
  /** By `capfleet schedule run`. */
  asked: z.boolean(),
  started: time,
  /** Null until there is one. */
  job: z.string().nullable(),
  /** The job's output. */
  out: z.string().nullable(),
  /** Starts that have failed, why the last one did, and when the next may be. */
  failures: z.int(),
  error: reasonSchema.nullable(),
  notBefore: time.nullable(),
});
export type ScheduleRun = z.infer<typeof runSchema>;

const endedRunSchema = runSchema.pick({ due: true, asked: true, started: true, job: true, out: true }).extend({
  ended: time,
  /** `error`: no job could be started, or it has been deleted. */
  outcome: z.enum(["finished", "failed", "cancelled", "nothing new", "error"]),
  error: reasonSchema.nullable(),
  rows: z.int().nullable(),
  failed: z.int().nullable(),
});
export type EndedRun = z.infer<typeof endedRunSchema>;

export const scheduleSchema = z.object({
  schema: z.literal(SCHEMA_VERSION),
  name: z.string(),
  cron: z.string(),
  timeZone: z.string(),
  created: time,
  paused: z.boolean(),
  /** What was given after `--`. */
  command: z.array(z.string()),
  job: scheduledJobSchema,
  /** Due times until then are dealt with, or never counted. */
  handled: time,
  /** When a run was asked for that has not begun. */
  asked: time.nullable(),
  /** The one under way. */
  run: runSchema.nullable(),
  /** The last ones, oldest first. */
  runs: z.array(endedRunSchema),
});
export type Schedule = z.infer<typeof scheduleSchema>;

/** Throws INVALID_OPTION. */
export function checkName(name: string): void {
  if (/^[a-z0-9][a-z0-9_-]{0,62}$/.test(name)) return;
  const message = `"${name}" can't be a schedule's name: 1 to 63 of a-z, 0-9, "-" and "_", with a letter or digit first`;
  throw new CapfleetError("INVALID_OPTION", message);
}

export class Schedules {
  readonly #store: Store;

  constructor(state: Store) {
    this.#store = state;
  }

  /** Throws SCHEDULE_EXISTS. */
  async create(schedule: Schedule): Promise<void> {
    const { name } = schedule;
    const put = await this.#store.putIfAbsent(stateLayout.schedule(name), textOf(schedule));
    if (put.outcome === "exists") throw new CapfleetError("SCHEDULE_EXISTS", `there is a schedule ${name} already`);
  }

  /** Every schedule, in the order of their names. */
  async *all(): AsyncGenerator<{ name: string; etag: string }> {
    for await (const { key, etag } of this.#store.list({ prefix: stateLayout.schedules })) {
      const name = /^schedules\/(.+)\.json$/.exec(key)?.[1];
      if (name) yield { name, etag };
    }
  }

  /** Throws INVALID_OPTION, or SCHEDULE_NOT_FOUND. */
  async read(name: string): Promise<{ schedule: Schedule; etag: string }> {
    checkName(name);
    const key = stateLayout.schedule(name);
    if (!(await this.#store.stat(key)))
      throw new CapfleetError("SCHEDULE_NOT_FOUND", `no schedule ${name} in ${this.#store.uri}`);
    const { bytes, etag } = await this.#store.read(key);
    return { schedule: scheduleSchema.parse(JSON.parse(bytes.toString("utf8"))), etag };
  }

  /**
   * Changes it with If-Match, as often as somebody else is quicker; `change` may be called again, and returns null where
   * nothing is to be changed. Returns the schedule as it is then. Throws SCHEDULE_NOT_FOUND.
   */
  async update(name: string, change: (schedule: Schedule) => Schedule | null): Promise<Schedule> {
    for (;;) {
      const { schedule, etag } = await this.read(name);
      const changed = change(schedule);
      if (!changed) return schedule;
      const put = await this.#store.putIfMatch(stateLayout.schedule(name), textOf(changed), etag);
      if (put.outcome === "written") return changed;
    }
  }

  async delete(name: string): Promise<void> {
    await this.#store.delete(stateLayout.schedule(name));
  }
}

const textOf = (schedule: Schedule) => `${JSON.stringify(schedule, null, 2)}\n`;

/** Schedules: made, looked at, steered. One whose output is not the caller's does not exist. */
import { CapfleetError, JOB_TASKS } from "@capfleet/shared/contract";
import { findServedModel } from "@capfleet/shared/models";
import { keys } from "@capfleet/shared/queues";
import * as z from "zod";
import { createSchedule } from "../../schedules/create.ts";
import { nextDue } from "../../schedules/due.ts";
import { ask, paused, resumed } from "../../schedules/run.ts";
import { type Schedule, Schedules } from "../../schedules/schedule.ts";
import { type Caller, checkLocations, maySee } from "../access.ts";
import type { Api, Server } from "../api.ts";
import { errorResponses, fields } from "../schemas.ts";
import { askedOf, submissionSchema, webhookOf } from "../submission.ts";

const RUNS_SHOWN = 20;
const params = z.object({ name: z.string().meta({ description: "The schedule's name" }) });

const newSchema = fields({
  name: z
    .string()
    .max(63)
    .meta({ description: "1 to 63 of a-z, 0-9, - and _", examples: ["nightly"] }),
  cron: z
    .string()
    .max(200)
    .meta({ description: "minute, hour, day of the month, month, day of the week", examples: ["0 2 * * *"] }),
  time_zone: z
    .string()
    .max(100)
    .default("UTC")
    .meta({ examples: ["Europe/Berlin"] }),
  job: submissionSchema,
}).meta({ id: "NewSchedule" });

const scheduleSchema = z
  .strictObject({
    name: z.string(),
    cron: z.string(),
    time_zone: z.string(),
    state: z.enum(["active", "paused"]),
    task: z.enum(JOB_TASKS),
    input: z.string(),
    output: z.string().meta({ description: "Of all its runs" }),
    incremental: z.boolean(),
    next_due_at: z.iso.datetime().nullable().meta({ description: "Null: paused, or never again" }),
    runs: z
      .array(
        z.strictObject({
          due_at: z.iso.datetime().meta({ description: "Or asked for" }),
          started_at: z.iso.datetime().optional(),
          job_id: z.string().nullable(),
          outcome: z
            .enum(["finished", "failed", "cancelled", "nothing_new", "error"])
            .nullable()
            .meta({ description: "Null: it is under way. error: no job could be made" }),
          rows: z.int().nullable(),
          failed: z.int().nullable(),
          error: z
            .strictObject({ code: z.string(), message: z.string() })
            .nullable()
            .meta({ description: "Why it failed; of a run under way, why its start has to be tried again" }),
        }),
      )
      .meta({ description: "The newest first, the last 20" }),
  })
  .meta({ id: "Schedule" });
export type ScheduleView = z.infer<typeof scheduleSchema>;
type RunView = ScheduleView["runs"][number];

/** Of one that there is; null where nothing changes. */
type Change = (schedule: Schedule, now: number) => Schedule | null;
const ACTIONS: Record<string, { change: Change; summary: string }> = {
  run: { change: ask, summary: "Run it now; one that is under way is the answer" },
  pause: { change: paused, summary: "Start nothing by itself; a run under way goes on" },
  resume: { change: resumed, summary: "Go on from now: what was missed while it was paused does not run" },
};

export function scheduleRoutes(server: Server, { state, stores, config, redis }: Api): void {
  const schedules = new Schedules(state);
  const find = (name: string, caller: Caller) => findVisible(name, caller, schedules);

  server.post("/v1/schedules", {
    config: { scope: "submit" },
    schema: {
      summary: "Make a schedule",
      description: "Its job is checked as one that is submitted. Its runs may do what the caller may now.",
      tags: ["schedules"],
      body: newSchema,
      response: { 201: scheduleSchema, ...errorResponses(409, 413, 415, 422) },
    },
    handler: async ({ body: { name, cron, time_zone: timeZone, job }, caller }, reply) => {
      checkLocations(caller!, job.input, job.output);
      const webhook = webhookOf(job, config.api.webhookNetworks);
      const asked = askedOf(job);
      const request = { ...asked.request, readable: caller!.readable };
      const findModel = (model: string) => findServedModel(model, asked.precision, state, config);
      const schedule = await createSchedule(
        { name, cron, timeZone, command: [], asked: { ...asked, request }, webhook },
        { state, stores, findModel },
        Date.now(),
      );
      return reply.code(201).send(viewOf(schedule));
    },
  });

  server.get("/v1/schedules", {
    schema: {
      summary: "All schedules, in the order of their names",
      tags: ["schedules"],
      response: { 200: z.strictObject({ schedules: z.array(scheduleSchema) }), ...errorResponses() },
    },
    handler: async ({ caller }) => {
      const views: ScheduleView[] = [];
      for await (const { name } of schedules.all()) {
        const schedule = await find(name, caller!).catch(orGone);
        if (schedule) views.push(viewOf(schedule));
      }
      return { schedules: views };
    },
  });

  server.get("/v1/schedules/:name", {
    schema: {
      summary: "A schedule, and how its last runs went",
      tags: ["schedules"],
      params,
      response: { 200: scheduleSchema, ...errorResponses(404) },
    },
    handler: async ({ params: { name }, caller }) => viewOf(await find(name, caller!)),
  });

  for (const [action, { change, summary }] of Object.entries(ACTIONS)) {
    server.post(`/v1/schedules/:name/${action}`, {
      config: { scope: "submit" },
      schema: {
        summary,
        tags: ["schedules"],
        params,
        response: { 200: scheduleSchema, ...errorResponses(404, 413, 415) },
      },
      handler: async ({ params: { name }, caller }) => {
        await find(name, caller!);
        const schedule = await schedules.update(name, (seen) => change(seen, Date.now()));
        await redis.publish(keys.wake(), name).catch(() => {});
        return viewOf(schedule);
      },
    });
  }

  server.delete("/v1/schedules/:name", {
    config: { scope: "submit" },
    schema: {
      summary: "Delete a schedule; its jobs and datasets stay, and a run under way goes on",
      tags: ["schedules"],
      params,
      response: { 204: z.undefined().meta({ description: "Deleted" }), ...errorResponses(404) },
    },
    handler: async ({ params: { name }, caller }, reply) => {
      await find(name, caller!);
      await schedules.delete(name);
      return reply.code(204).send();
    },
  });
}

/** Throws SCHEDULE_NOT_FOUND, also for what can't be a name and for another's. */
async function findVisible(name: string, caller: Caller, schedules: Schedules): Promise<Schedule> {
  const schedule = await schedules.read(name).then(({ schedule }) => schedule, orInvalid);
  if (schedule && maySee(caller, schedule.job.request.output)) return schedule;
  throw new CapfleetError("SCHEDULE_NOT_FOUND", `no schedule ${name}`);
}

function orInvalid(thrown: unknown): null {
  if (thrown instanceof CapfleetError && ["SCHEDULE_NOT_FOUND", "INVALID_OPTION"].includes(thrown.code)) return null;
  throw thrown;
}

/** Another's, or deleted while it was listed. */
function orGone(thrown: unknown): null {
  if (thrown instanceof CapfleetError && thrown.code === "SCHEDULE_NOT_FOUND") return null;
  throw thrown;
}

function viewOf(schedule: Schedule): ScheduleView {
  const { name, cron, timeZone, paused: isPaused, job } = schedule;
  const { task, input, output, incremental } = job.request;
  const next = isPaused ? null : nextDue(schedule, Date.now());
  return {
    name,
    cron,
    time_zone: timeZone,
    state: isPaused ? "paused" : "active",
    task: task.name,
    input,
    output,
    incremental,
    next_due_at: next === null ? null : new Date(next).toISOString(),
    runs: runsOf(schedule),
  };
}

function runsOf({ asked, run, runs }: Schedule): RunView[] {
  const open = { job_id: null, outcome: null, rows: null, failed: null, error: null };
  const ended = runs.map(
    ({ due, started, job, outcome, rows, failed, error }): RunView => ({
      due_at: due,
      started_at: started,
      job_id: job,
      outcome: outcome === "nothing new" ? "nothing_new" : outcome,
      rows,
      failed,
      error,
    }),
  );
  return [
    ...(asked ? [{ ...open, due_at: asked }] : []),
    ...(run ? [{ ...open, due_at: run.due, started_at: run.started, job_id: run.job, error: run.error }] : []),
    ...ended.reverse(),
  ].slice(0, RUNS_SHOWN);
}

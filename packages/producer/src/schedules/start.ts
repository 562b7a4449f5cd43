/** The job of a schedule's run: made, or found where an interrupted start has made it. */
import { datasetLayout } from "@capfleet/shared/contract";
import { findModel, type Model } from "@capfleet/shared/models";
import type { Context } from "../cli/context.ts";
import { createRun } from "../incremental/start.ts";
import { adopt, createJob, readJobFile } from "../jobs/create.ts";
import { addWebhook } from "../webhooks/webhook.ts";
import type { MadeJob } from "./run.ts";
import type { Schedule, ScheduleRun } from "./schedule.ts";

export type Surroundings = Pick<Context, "stores" | "state" | "states" | "config">;

/** Null where there is nothing new. Throws what submitting the job throws. */
export async function startRun(
  schedule: Schedule,
  run: ScheduleRun,
  surroundings: Surroundings,
): Promise<MadeJob | null> {
  const made = await makeJob(schedule, run, surroundings);
  const { webhook } = schedule.job;
  // Dying before this line leaves a job without it; the start is repeated then, and finds the job.
  if (made && webhook) await addWebhook(made.job, webhook, surroundings.state);
  return made;
}

async function makeJob(
  { job: { request, models: names, precision } }: Schedule,
  { name }: ScheduleRun,
  { stores, state, states, config }: Surroundings,
): Promise<MadeJob | null> {
  const out = `${request.output}${datasetLayout.run(name)}`;
  const file = await readJobFile(stores.at(out));
  // Whatever has become of the model since: the job is there.
  if (file && (await states.find(file.id))) return { job: file.id, out, existed: true };
  const models: Model[] = [];
  for (const model of names) models.push(await findModel(model, precision, state, config, { stores }));
  if (file) {
    await adopt(file, out, request, models, states);
    return { job: file.id, out, existed: true };
  }
  const created = request.incremental
    ? await createRun(request, models, stores, states, name)
    : await createJob({ ...request, output: out }, models, stores, states);
  return "nothingNew" in created ? null : { job: created.file.id, out: created.out, existed: created.existed };
}

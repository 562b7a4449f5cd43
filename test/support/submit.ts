/** `capfleet submit` without a process of its own: the code behind it. */
import { readConfig } from "@capfleet/shared/config";
import { findModel } from "@capfleet/shared/models";
import type { Store, Stores } from "@capfleet/shared/storage";
import { Command } from "commander";
import { addJobOptions, LANE } from "../../packages/producer/src/cli/job-options.ts";
import { create } from "../../packages/producer/src/incremental/start.ts";
import { askedJob, type JobOptions } from "../../packages/producer/src/jobs/asked-job.ts";
import { JobStates } from "../../packages/producer/src/jobs/states.ts";

/** `line` is what follows `capfleet submit`. Nobody is told: the producer finds the job when it looks. Throws what is wrong with it. */
export async function submitHere(
  env: NodeJS.ProcessEnv,
  stores: Stores,
  line: readonly string[],
): Promise<{ id: string; store: Store }> {
  const command = addJobOptions(new Command("submit"), [LANE])
    .exitOverride()
    .configureOutput({ writeErr() {} });
  command.parse(line, { from: "user" });
  const [task, input] = command.args as [string, string];
  const { request, models, precision } = askedJob(task, input, command.opts<JobOptions>(), "fleet");
  const config = readConfig(env);
  const state = stores.at(config.state);
  const found = await Promise.all(models.map((model) => findModel(model, precision, state, config)));
  const created = await create(request, found, stores, new JobStates(state));
  if ("nothingNew" in created) throw new Error(`nothing new in ${created.root}`);
  return { id: created.file.id, store: stores.at(created.out) };
}

/** `capfleet delete`: a job that has ended, with everything that it wrote. */
import { createInterface } from "node:readline/promises";
import { CapfleetError, type JobState } from "@capfleet/shared/contract";
import { removeJob } from "../jobs/remove.ts";
import { type Context, findJob, isJobId } from "./context.ts";
import { plural } from "./format.ts";

/** Asks first, unless `yes`. Throws JOB_STATE for a job that has not ended, NOT_CONFIRMED, and the stores' errors. */
export async function deleteJob(job: string, { yes }: { yes: boolean }, context: Context): Promise<void> {
  const state = await findState(job, context);
  const { id, out, ended } = state;
  if (!ended) {
    throw new CapfleetError(
      "JOB_STATE",
      `${id} has not ended; cancel it first (capfleet cancel ${id}), then delete it`,
    );
  }
  if (!yes) await confirm(`Delete ${id} (${ended}) and all that it wrote below ${out}?`);
  const { objects, left } = await removeJob(state, context.stores, context.states);
  process.stdout.write(`deleted ${id}: ${plural(objects, "object")} below ${out}\n`);
  if (left !== null) process.stderr.write(`not deleted, since no job wrote it: ${out}${left}\n`);
}

/** By its id, also a job whose deletion was interrupted after its output had gone. */
async function findState(job: string, context: Context): Promise<JobState> {
  const known = isJobId(job) && (await context.states.find(job));
  return known || (await findJob(job, context)).state;
}

async function confirm(question: string): Promise<void> {
  if (!process.stdin.isTTY) throw new CapfleetError("NOT_CONFIRMED", "there is nobody to ask here");
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await terminal.question(`${question} [y/N] `);
    if (!/^y(es)?$/i.test(answer.trim())) throw new CapfleetError("NOT_CONFIRMED", "nothing was deleted");
  } finally {
    terminal.close();
  }
}

/** Commands that go on with a job: resume, and retry for what failed. */
import { CapfleetError } from "@capfleet/shared/contract";
import { findLocalModel, parseDevice } from "@capfleet/shared/models";
import { retryJob } from "../jobs/retry.ts";
import { type Context, type FoundJob, findJob, wakeReconciler } from "./context.ts";
import { plural } from "./format.ts";
import { showingDownload } from "./progress.ts";
import { runHere } from "./run.ts";

export interface ResumeOptions {
  device?: string;
}

/** A fleet's job goes on in the fleet; a local one here, until it ends. */
export async function resume(job: string, context: Context, options: ResumeOptions): Promise<void> {
  const { file, state } = await findJob(job, context);
  if (state.ended) throw new CapfleetError("JOB_STATE", `${file.id} has already ended: it is ${state.ended}`);
  if (state.runner === "local") return goOnHere({ file, state }, context, options);
  await context.states.want(file.id, "run");
  await wakeReconciler(context, file.id);
  print(`resumed ${file.id}`);
}

export interface RetryOptions extends ResumeOptions {
  maxErrorRate?: number;
}

/**
 * Once more for the rows that failed and may succeed, and for what a failed job has left undone. Says so where there are
 * none, and changes nothing. Throws JOB_STATE for a job that has not ended or was cancelled.
 */
export async function retry(job: string, context: Context, options: RetryOptions): Promise<void> {
  const { file, state, store } = await findJob(job, context);
  if (state.runner === "local") parseDevice(options.device ?? "cpu");
  const { state: again, rows } = await retryJob(
    { job: state, store, maxErrorRate: options.maxErrorRate ?? null },
    context,
  );
  if (rows === 0) return print(`${file.id} has no rows that failed and may succeed`);
  if (state.runner === "local") return goOnHere({ file, state: again }, context, options);
  await wakeReconciler(context, file.id);
  print(`retrying ${file.id}${rows === null ? "" : `: ${plural(rows, "row")}`}`);
}

async function goOnHere({ file, state }: Pick<FoundJob, "file" | "state">, context: Context, options: ResumeOptions) {
  const device = options.device ?? "cpu";
  parseDevice(device);
  const folders: string[] = [];
  for (const [i, engine] of file.spec.engines.entries()) {
    const source = state.checkpoints?.[i] ?? engine.model;
    const model = await showingDownload(context.stores, (fetching) =>
      findLocalModel(source, engine.precision, context.config, fetching),
    );
    if (model.ref.digest !== engine.digest) {
      const found = `${model.folder} is engine ${model.ref.digest}; ${file.id} was started with ${engine.digest}`;
      throw new CapfleetError("MODEL_NOT_FOUND", found);
    }
    folders.push(model.folder!);
  }
  await runHere({ file, state, out: state.out, existed: true }, folders, device, context);
}

const print = (line: string) => void process.stdout.write(`${line}\n`);

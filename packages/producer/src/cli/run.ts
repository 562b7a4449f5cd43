/** `capfleet run`: a whole job on this machine, with a Redis and a worker of its own. */
import { availableParallelism } from "node:os";
import { CapfleetError, ERRORS, type ErrorCode, type Summary } from "@capfleet/shared/contract";
import { choosePrecision, findLocalModel, type Model } from "@capfleet/shared/models";
import { redisPrefix } from "@capfleet/shared/queues";
import { foretell } from "../estimate/foretell.ts";
import { create } from "../incremental/start.ts";
import type { AskedJob } from "../jobs/asked-job.ts";
import type { CreatedJob } from "../jobs/create.ts";
import { readSummary } from "../jobs/status.ts";
import { expectRedis, openRedis } from "../local/redis.ts";
import { LocalWorker } from "../local/worker.ts";
import { Reconciler } from "../reconcile/reconciler.ts";
import type { Context } from "./context.ts";
import { nothingNewText } from "./dataset.ts";
import { summaryText } from "./format.ts";
import { ProgressDisplay, showingDownload } from "./progress.ts";

/** A job that nothing moves for this long is given up (it can be resumed): nobody may be watching. */
const BLOCKED_MS = 10 * 60 * 1_000;
const TICK_MS = 250;
/** What a worker may spend on finishing shards after Ctrl-C, where CAPFLEET_GRACE_SECONDS does not say. */
const GRACE_SECONDS = "10";

export async function run({ request, models: names, precision }: AskedJob, device: string, context: Context) {
  const chosen = choosePrecision(device, precision ?? undefined);
  const models: Model[] = [];
  for (const name of names) {
    models.push(
      await showingDownload(context.stores, (fetching) => findLocalModel(name, chosen, context.config, fetching)),
    );
  }
  await expectRedis(context.config.redisUrl);
  const created = await create(request, models, context.stores, context.states);
  if ("nothingNew" in created) {
    process.stdout.write(`${nothingNewText(created)}\n`);
    return;
  }
  const folders = models.map(({ folder }) => folder!);
  await runHere(created, folders, device, context);
}

/** Runs a job to its end. Throws INTERRUPTED after Ctrl-C, JOB_FAILED, WORKER_START_FAILED or Redis's errors. */
export async function runHere(
  created: CreatedJob,
  checkpoints: readonly string[],
  device: string,
  context: Context,
): Promise<void> {
  const { file, out } = created;
  const { stores, states, config, log } = context;
  const display = new ProgressDisplay();
  if (created.state.ended) return report(created, context, `${file.id} has already ended`);
  if (created.state.intent === "cancelled") throw new CapfleetError("JOB_STATE", `${file.id} has been cancelled`);
  await states.want(file.id, "run");
  display.say(`${created.existed ? "going on with" : "started"} ${file.id}: ${file.spec.input.uri} → ${out}`);
  const line = created.existed
    ? null
    : await foretell(file, { workers: 1, pricePerHour: config.pricePerHour }, context);
  if (line) display.say(line);

  // Whatever else uses this Redis must not meet this machine's paths.
  process.env.CAPFLEET_REDIS_PREFIX = `${redisPrefix()}-${file.id}`;
  const redis = await openRedis(config.redisUrl);
  const env = { CAPFLEET_GRACE_SECONDS: GRACE_SECONDS, ...process.env, CAPFLEET_REDIS_URL: redis.url };
  const settings = ["--precision", file.spec.engines[0]!.precision, "--device", device];
  const worker = new LocalWorker(
    ["--models", checkpoints.join(","), ...settings, "--threads", String(availableParallelism())],
    env,
  );
  const stop = new AbortController();
  const isMine = ({ id }: { id: string }) => id === file.id;
  const reconciler = new Reconciler({ stores, states, redisUrl: redis.url, log, isMine, scheduler: null });
  const looping = reconciler.run(stop.signal);
  const interrupted = interruption(file.id, display, worker);
  try {
    await Promise.race([untilEnded(created, reconciler, display, context), worker.failed, interrupted.promise]);
  } finally {
    display.clear();
    interrupted.ignore();
    await worker.stop();
    stop.abort();
    await looping;
    await redis.stop();
  }
  await report(created, context, null);
}

async function untilEnded(created: CreatedJob, reconciler: Reconciler, display: ProgressDisplay, context: Context) {
  const { id } = created.file;
  let blockedSince: number | null = null;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
    const progress = reconciler.progressOf(id);
    if (!progress) continue;
    display.show(progress.waiting === null ? progress : { ...progress, waiting: "the worker is starting" });
    if (progress.state === "paused" || ENDED.includes(progress.state)) {
      // A store that is away for a moment is asked again in the next round.
      const state = await context.states.find(id).catch(() => undefined);
      if (state === undefined) continue;
      if (!state || state.ended) return;
      if (state.intent === "paused" && progress.state === "paused") return;
    }
    blockedSince = progress.state === "blocked" ? (blockedSince ?? performance.now()) : null;
    if (blockedSince !== null && performance.now() - blockedSince > BLOCKED_MS) {
      const { code, message } = progress.reason!;
      throw new CapfleetError(code in ERRORS ? (code as ErrorCode) : "JOB_FAILED", `given up: ${message}`);
    }
  }
}

const ENDED = ["finished", "cancelled", "failed"];

/** The first Ctrl-C stops in good order, the second at once. */
function interruption(job: string, display: ProgressDisplay, worker: LocalWorker) {
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => {});
  let times = 0;
  const listen = (signal: NodeJS.Signals) => {
    times += 1;
    if (times > 1) return worker.kill();
    display.say("stopping: the worker finishes what it has in work (Ctrl-C again: at once)");
    reject(new CapfleetError("INTERRUPTED", `stopped by ${signal}; go on with: capfleet resume ${job}`));
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, listen);
  const ignore = () => {
    if (times === 0) for (const signal of signals) process.removeListener(signal, listen);
  };
  return { promise, ignore };
}

/** The end of a job, on stdout. Throws JOB_FAILED. */
export async function report(
  { file, out }: CreatedJob,
  { stores, states }: Context,
  note: string | null,
): Promise<void> {
  const state = await states.find(file.id);
  if (note) process.stderr.write(`${note}\n`);
  if (state && !state.ended) {
    process.stdout.write(`paused: ${file.id}\ngo on with: capfleet resume ${file.id}\n`);
    return;
  }
  const summary: Summary | null = await readSummary(stores.at(out));
  if (!summary) throw new CapfleetError("JOB_FAILED", `${file.id} has ended, but ${out}summary.json is missing`);
  process.stdout.write(`${summaryText(summary, out)}\n`);
  const { since } = file.spec.input;
  if (summary.state === "finished") {
    if (since) process.stdout.write(`dataset  ${since.root}\n`);
    return;
  }
  const why = summary.reason ? `${summary.reason.code}: ${summary.reason.message}` : `it was ${summary.state}`;
  throw new CapfleetError("JOB_FAILED", `${file.id} did not finish: ${why}`);
}

/**
 * The lines at which tests make a process die, hang or meet an error, each with what has happened by then. See faults.ts;
 * docs/reliability.md lists them.
 */
export const FAULT_POINTS = {
  // ---- worker: a shard, from its queue to its end. The argument is the shard's number, or the record's id.
  "worker.shard.taken": "A shard has been taken from its queue; nothing else is known of it.",
  "worker.intent.read": "It is known that the job is to run.",
  "worker.input.read": "The job's file and the shard's records are read.",
  "worker.image.fetched": "A record's image is in memory.",
  "worker.decode": "A record's image is about to be decoded.",
  "worker.image.decoded": "A record's pixels are there.",
  "worker.infer": "A record is about to be run by the engine, in a batch; on the engine's thread.",
  "worker.inferred": "A record's answers are there.",
  "worker.data.written": "The shard's data file is written; nothing names it.",
  "worker.commit.before": "All rows are there, in memory; the next thing is the PUT.",
  "worker.commit.after": "The rows are committed; nobody has been told.",
  "worker.report.after": "The reconciler has been told; the queue still has the shard.",
  // ---- worker: an interactive request. The argument is the record's id, or (answered) the request's.
  "worker.request.taken": "A request has been taken from its queue and read.",
  "worker.request.answered": "The answer is on its way; the queue still has the request.",
  // ---- jobs and their state. The argument is the job's id.
  "job.file.written": "job.json is there; the state root does not know the job.",
  "job.state.before": "A change of a job's state is about to be written.",
  "job.state.after": "A job's state is changed.",
  // ---- planner. The argument is the shard's number.
  "planner.shard.written": "A shard's records are written; it is not counted.",
  "planner.plan.before": "All shards are written; plan.json is not.",
  "planner.plan.after": "plan.json is written.",
  // ---- reconciler. The argument is the job's id, where there is one.
  "reconciler.leased": "The lease is held; the round has done nothing.",
  "reconciler.reports.taken": "Reports are out of Redis and counted nowhere.",
  "reconciler.withdrawn": "Waiting shards of a job have been taken out of its queue.",
  "reconciler.fill.before": "It is decided which shards go out; none has.",
  "reconciler.fill.after": "Shards have gone out.",
  "reconciler.rollup.written": "A rollup is written; its shards are in memory still.",
  // ---- the end of a job. The argument is the job's id.
  "finisher.begun": "All rows are committed and counted; nothing of the end is written.",
  "finisher.swept": "Data files that nothing names are deleted.",
  "finisher.summary.written": "summary.json is written.",
  "finisher.report.written": "report.html is written, where the job has one.",
  "finisher.success.written": "_SUCCESS is written, where the job has finished; its state says that it runs.",
  "finisher.state.written": "The job's state says that it has ended.",
  "finisher.released": "The dataset of an incremental run waits for it no longer.",
  // ---- incremental runs. The argument is the run's name, or the part's number.
  "run.claimed": "dataset.json names the run; there is no job.",
  "publish.part.written": "A part of the next index is written.",
  "publish.index.written": "The next index is whole; the dataset is as it was.",
  "publish.turned": "The dataset has been turned; indexes that nobody reads are left.",
  // ---- schedules. The argument is the schedule's name.
  "schedule.begun": "A run has been begun in the schedule's file; there is no job.",
  "schedule.started": "The run's job is there; the schedule does not know it.",
  "schedule.noted": "The schedule knows the run's job.",
} as const satisfies Record<string, string>;

export type FaultPoint = keyof typeof FAULT_POINTS;

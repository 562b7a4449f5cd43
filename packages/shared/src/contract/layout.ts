/** Names of the objects below a job's output prefix, a dataset's root and the state root. Numbers sort as text does. */

const six = (n: number) => String(n).padStart(6, "0");

export const layout = {
  job: "job.json",
  plan: "plan.json",
  summary: "summary.json",
  success: "_SUCCESS",
  report: "report.html",
  shards: "shards/",
  results: "results/",
  rollups: "rollups/",
  /** Derived from the results: `data/NNNNNN-<attempt>.<ending>`. Only those count that the results name. */
  data: "data/",
  shard: (n: number) => `shards/${six(n)}.jsonl`,
  result: (n: number) => `results/${six(n)}.jsonl`,
  datum: (n: number, attempt: string, ending: string) => `data/${six(n)}-${attempt}.${ending}`,
  rollup: (n: number) => `rollups/${six(n)}.json`,
  /** The number in `shards/000012.jsonl`, or null for a name of another form. */
  numberOf: (key: string): number | null => {
    const found = /(?:^|\/)(\d{6,})\.jsonl?$/.exec(key);
    return found ? Number(found[1]) : null;
  },
};

/** Below the root of a dataset of incremental runs. Each run is a job, and its output is `runs/<run>/`. */
export const datasetLayout = {
  dataset: "dataset.json",
  runs: "runs/",
  run: (run: string) => `runs/${run}/`,
  /** The run whose output is `out`, a folder below `runs/`. */
  runOf: (out: string) => out.split("/").at(-2)!,
  indexes: "index/",
  index: (index: string) => `index/${index}/`,
  indexPart: (index: string, n: number) => `index/${index}/${six(n)}.jsonl`,
};

export const stateLayout = {
  jobs: "jobs/",
  job: (id: string) => `jobs/${id}.json`,
  models: "models/",
  model: (name: string) => `models/${name}.json`,
  keys: "keys/",
  key: (id: string) => `keys/${id}.json`,
  /** By a digest of who asked and of the Idempotency-Key. */
  idempotency: (digest: string) => `idempotency/${digest}.json`,
  schedules: "schedules/",
  schedule: (name: string) => `schedules/${name}.json`,
  /** How fast jobs were labelled, by the engines that they need and their task. */
  rate: (engines: string, task: string) => `rates/${engines}.${task}.json`,
  webhooks: "webhooks/",
  webhook: (job: string) => `webhooks/${job}.json`,
  /** Once the job's end has been told; a retry takes it up again. */
  toldWebhook: (job: string) => `webhooks-told/${job}.json`,
};

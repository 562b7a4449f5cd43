/** Prometheus. The fleet's figures are the reconciler's, wherever it runs: every producer gives the same; HTTP is its own. */
import {
  type FleetFigures,
  fromRedis,
  JOB_STATES,
  liveWorkers,
  type Presence,
  readFigures,
  servedSets,
} from "@capfleet/shared/queues";
import type { Redis } from "ioredis";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Target } from "../scale/policy.ts";
import { isKnown, scaleOfSets } from "../scale/pools.ts";
import type { Server } from "./api.ts";

const HTTP_SECONDS = [0.005, 0.02, 0.1, 0.5, 2, 10];

export class Metrics {
  readonly #registry = new Registry();
  readonly #redis: Redis;
  readonly #target: Target;
  readonly #http = new Histogram({
    name: "capfleet_http_request_duration_seconds",
    help: "Time from a request to the end of its answer",
    labelNames: ["method", "route", "status"],
    buckets: HTTP_SECONDS,
    registers: [this.#registry],
  });

  /** `target`: of autoscaling. */
  constructor(redis: Redis, target: Target) {
    this.#redis = redis;
    this.#target = target;
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  watch(server: Server): void {
    server.addHook("onResponse", async ({ method, routeOptions }, { statusCode, elapsedTime }) => {
      const labels = { method, route: routeOptions.url ?? "none", status: statusCode };
      this.#http.observe(labels, elapsedTime / 1_000);
    });
  }

  /** Throws REDIS_UNREACHABLE. */
  async text(): Promise<string> {
    const [workers, figures] = await fromRedis(Promise.all([liveWorkers(this.#redis), readFigures(this.#redis)]));
    const now = new Registry();
    gauge(now, "capfleet_workers", "Live workers").set(workers.length);
    gauge(now, "capfleet_worker_slots", "Shards that they work on at once").set(sum(workers.map(({ slots }) => slots)));
    if (figures) addFigures(now, figures, workers);
    if (figures) addScale(now, figures, workers, this.#target);
    return Registry.merge([now, this.#registry]).metrics();
  }
}

function addFigures(registry: Registry, figures: FleetFigures, workers: readonly Presence[]): void {
  const { jobs, rows, backlog, roundSeconds } = figures;
  const states = gauge(
    registry,
    "capfleet_jobs",
    "Jobs by state: those at work, and those that the reconciler has ended since it began",
    ["state"],
  );
  for (const state of JOB_STATES) states.set({ state }, jobs[state] ?? 0);
  const rowsTotal = new Counter({
    name: "capfleet_rows_total",
    help: "Rows committed, as reported to the reconciler since it began",
    labelNames: ["outcome"],
    registers: [registry],
  });
  rowsTotal.inc({ outcome: "labelled" }, rows.labelled);
  rowsTotal.inc({ outcome: "failed" }, rows.failed);
  const waiting = gauge(registry, "capfleet_backlog_records", "Records planned and not labelled, by engines", [
    "engines",
  ]);
  const shards = gauge(registry, "capfleet_backlog_shards", "Shards in Redis, by engines", ["engines"]);
  const able = gauge(registry, "capfleet_backlog_workers", "Live workers that run them, by engines", ["engines"]);
  for (const { engines, records, shards: there } of backlog) {
    waiting.set({ engines }, records);
    shards.set({ engines }, there);
    able.set({ engines }, workers.filter((worker) => servedSets(worker.engines).includes(engines)).length);
  }
  gauge(registry, "capfleet_reconciler_round_seconds", "What the reconciler's last round took").set(roundSeconds);
}

/** Where it is not known what is wanted, there is no sample: no alert or autoscaler may take it for 0. */
function addScale(registry: Registry, figures: FleetFigures, workers: Presence[], target: Target): void {
  const byEngines = (name: string, help: string) => gauge(registry, name, help, ["engines"]);
  const wanted = byEngines("capfleet_wanted_workers", "Workers that should run, by the engines that the work needs");
  const left = byEngines("capfleet_backlog_seconds", "Worker-seconds that what is left takes, where a rate is known");
  const rate = byEngines("capfleet_rate_rows_per_worker_second", "Rows a second of one worker, as measured lately");
  for (const { engines, rows, workerSeconds } of figures.backlog) {
    if (workerSeconds > 0) rate.set({ engines }, rows / workerSeconds);
  }
  if (!isKnown(figures)) return;
  for (const { engines, seconds, unknown, wanted: workersWanted } of scaleOfSets(figures, workers, target)) {
    wanted.set({ engines }, workersWanted);
    if (unknown === 0) left.set({ engines }, seconds);
  }
}

const gauge = <T extends string>(registry: Registry, name: string, help: string, labelNames: T[] = []) =>
  new Gauge({ name, help, labelNames, registers: [registry] });
const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);

/** What there is to work with: models and workers. */
import { readdir } from "node:fs/promises";
import { BUNDLED_MODELS } from "@capfleet/shared/config";
import { CapfleetError, precisionSchema } from "@capfleet/shared/contract";
import {
  bundledFolder,
  checkpointAbilities,
  registeredModels,
  registeredNames,
  sourceOf,
} from "@capfleet/shared/models";
import { fromRedis, liveWorkers, readFigures, readSamples, SAMPLE_SECONDS } from "@capfleet/shared/queues";
import type { Store } from "@capfleet/shared/storage";
import * as z from "zod";
import { isKnown, type SetScale, scaleOfPool, scaleOfSets } from "../../scale/pools.ts";
import type { Api, Server } from "../api.ts";
import {
  errorResponses,
  type FleetView,
  fields,
  fleetSchema,
  historySchema,
  type modelSchema,
  modelsSchema,
  wantedSchema,
} from "../schemas.ts";

type ModelView = z.infer<typeof modelSchema>;

const poolQuery = fields({
  models: z
    .string()
    .transform((text) => text.split(",").map((name) => name.trim()))
    .refine((names) => names.every((name) => name !== ""), "must be names of models, with commas between them")
    .meta({ description: "What the pool's workers run: their `--models`; folders as GET /v1/models names them" }),
  precision: precisionSchema.optional().meta({ description: "Theirs, where jobs pin several" }),
});

export function fleetRoutes(server: Server, { state, redis, config }: Api): void {
  const bundled = bundledModels();
  bundled.catch(() => {});

  server.get("/v1/models", {
    schema: {
      summary: "Models that jobs can name",
      tags: ["fleet"],
      response: { 200: modelsSchema, ...errorResponses() },
    },
    handler: async () => {
      const own = await bundled;
      const registered = await Array.fromAsync(registeredViews(state, new Set(own.map(({ name }) => name))));
      return { models: [...own, ...registered] };
    },
  });

  server.get("/v1/fleet", {
    schema: {
      summary: "Workers, and what waits for them",
      tags: ["fleet"],
      response: { 200: fleetSchema, ...errorResponses() },
    },
    handler: async () => {
      const [workers, figures] = await fromRedis(Promise.all([liveWorkers(redis), readFigures(redis)]));
      return {
        workers: workers.map(({ id, host, version, engines, slots, pricePerHour, inFlight }) => ({
          id,
          host,
          version,
          engines: engines.map(({ model, precision, digest }) => ({ model, precision, digest })),
          slots,
          price_per_hour: pricePerHour,
          in_flight: { shards: inFlight.length, rows: inFlight.reduce((sum, { rows }) => sum + rows, 0) },
        })),
        backlog: (figures?.backlog ?? []).map(({ engines, jobs, records, shards, rows, workerSeconds }) => ({
          engines,
          jobs,
          records,
          shards,
          rate_per_worker: workerSeconds > 0 ? rows / workerSeconds : null,
        })),
        autoscaling: figures && isKnown(figures) ? scaleOfSets(figures, workers, config.scale).map(scaleView) : [],
      };
    },
  });

  server.get("/v1/fleet/history", {
    schema: {
      summary: "The fleet's last hour",
      tags: ["fleet"],
      response: { 200: historySchema, ...errorResponses() },
    },
    handler: async () => {
      const samples = await fromRedis(readSamples(redis));
      return {
        interval_seconds: SAMPLE_SECONDS,
        samples: samples.map(({ at, rate, workers, backlog }) => {
          return { at: new Date(at).toISOString(), rows_per_second: rate, workers, backlog };
        }),
      };
    },
  });

  server.get("/v1/fleet/wanted", {
    schema: {
      summary: "How many workers a pool should have",
      tags: ["fleet"],
      querystring: poolQuery,
      response: { 200: wantedSchema, ...errorResponses(422) },
    },
    handler: async ({ query: { models: given, precision = null } }) => {
      const models = given.map((name) => (/^s3:/i.test(name) ? sourceOf(name).name : name));
      const [workers, figures] = await fromRedis(Promise.all([liveWorkers(redis), readFigures(redis)]));
      const wanted_workers = scaleOfPool({ models, precision }, figures, workers, config.scale);
      for (const name of models) await checkModel(name, state);
      return { wanted_workers };
    },
  });
}

const scaleView = ({ engines, models, records, wanted, ...load }: SetScale): FleetView["autoscaling"][number] => ({
  engines,
  models,
  outstanding_records: records,
  backlog_seconds: load.unknown > 0 ? null : load.seconds,
  rate_per_worker: load.unknown > 0 || load.seconds === 0 ? null : records / load.seconds,
  wanted_workers: wanted,
});

/** Throws MODEL_NOT_FOUND: for a name that is misspelt nothing would ever be wanted. */
async function checkModel(name: string, state: Store): Promise<void> {
  if (bundledFolder(name) || (await registeredModels(name, state)).length > 0) return;
  throw new CapfleetError("MODEL_NOT_FOUND", `no model "${name}" is bundled, or registered by a worker that runs it`);
}

async function bundledModels(): Promise<ModelView[]> {
  const views: ModelView[] = [];
  for (const name of (await readdir(BUNDLED_MODELS)).sort()) {
    const folder = bundledFolder(name);
    if (!folder) continue;
    const { tasks, precisions, maxNewTokens } = await checkpointAbilities(folder);
    views.push({ name, bundled: true, tasks: [...tasks], precisions: [...precisions], max_new_tokens: maxNewTokens });
  }
  return views;
}

async function* registeredViews(state: Store, known: ReadonlySet<string>): AsyncGenerator<ModelView> {
  for await (const name of registeredNames(state)) {
    const engines = known.has(name) ? [] : await registeredModels(name, state);
    const last = engines.at(-1);
    if (!last) continue;
    const precisions = engines.map(({ ref }) => ref.precision);
    yield { name, bundled: false, tasks: [...last.tasks], precisions, max_new_tokens: last.maxNewTokens };
  }
}

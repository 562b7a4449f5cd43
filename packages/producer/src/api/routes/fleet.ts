/** What there is to work with: models and workers. */
import { readdir } from "node:fs/promises";
import { BUNDLED_MODELS } from "@capfleet/shared/config";
import { bundledFolder, checkpointAbilities, registeredModels, registeredNames } from "@capfleet/shared/models";
import { liveWorkers, readFigures, readSamples, SAMPLE_SECONDS } from "@capfleet/shared/queues";
import type { Store } from "@capfleet/shared/storage";
import type * as z from "zod";
import type { Api, Server } from "../api.ts";
import { fromRedis } from "../redis.ts";
import { errorResponses, fleetSchema, historySchema, type modelSchema, modelsSchema } from "../schemas.ts";

type ModelView = z.infer<typeof modelSchema>;

export function fleetRoutes(server: Server, { state, redis }: Api): void {
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
        backlog: (figures?.backlog ?? []).map(({ rows, workerSeconds, ...set }) => ({
          ...set,
          rate_per_worker: workerSeconds > 0 ? rows / workerSeconds : null,
        })),
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

/** For load balancers and Prometheus. */
import { stateLayout } from "@capfleet/shared/contract";
import { fromRedis } from "@capfleet/shared/queues";
import * as z from "zod";
import type { Api, Server } from "../api.ts";
import { errorSchema } from "../errors.ts";
import type { Metrics } from "../metrics.ts";
import { errorResponses } from "../schemas.ts";

const statusSchema = z.strictObject({ status: z.literal("ok") });
const OK = { status: "ok" } as const;

export function healthRoutes(server: Server, { redis, state }: Api, metrics: Metrics): void {
  server.get("/healthz", {
    config: { scope: null },
    schema: { summary: "The process is alive", tags: ["health"], security: [], response: { 200: statusSchema } },
    handler: async () => OK,
  });

  server.get("/readyz", {
    config: { scope: null },
    schema: {
      summary: "Redis and the state store answer",
      tags: ["health"],
      security: [],
      response: { 200: statusSchema, 500: errorSchema, 503: errorSchema },
    },
    handler: async () => {
      await fromRedis(redis.ping());
      for await (const _ of state.list({ prefix: stateLayout.jobs })) break;
      return OK;
    },
  });

  server.get("/metrics", {
    schema: {
      summary: "Figures for Prometheus",
      tags: ["health"],
      response: {
        200: { description: "Text", content: { "text/plain": { schema: z.string() } } },
        ...errorResponses(),
      },
    },
    handler: async (_, reply) => {
      const text = await metrics.text();
      return reply
        .type(metrics.contentType)
        .serializer(String)
        .send(text as never);
    },
  });
}

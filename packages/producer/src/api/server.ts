/**
 * The submission API: who calls → how often → what they ask → routes/. Every answer has a schema, from which the types, the
 * validation and /openapi.json come; every error has the shape of `errors`.
 */
import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import { CapfleetError } from "@capfleet/shared/contract";
import { connectRedis } from "@capfleet/shared/queues";
import rateLimit from "@fastify/rate-limit";
import fastify, { type FastifyError, type FastifyRequest, LogController } from "fastify";
import { serializerCompiler, validatorCompiler } from "fastify-type-provider-zod";
import type { Context } from "../cli/context.ts";
import { consoleRoutes } from "../console/routes.ts";
import { InferClient } from "../infer/client.ts";
import { KeyRing } from "../keys/key-ring.ts";
import { Access, checkScope, isLoopback } from "./access.ts";
import type { Api, Server } from "./api.ts";
import { answerError, asApiError, errorBody } from "./errors.ts";
import { JobFeed } from "./feed.ts";
import { Metrics } from "./metrics.ts";
import { describeApi } from "./openapi.ts";
import { fleetRoutes } from "./routes/fleet.ts";
import { healthRoutes } from "./routes/health.ts";
import { inferRoutes } from "./routes/infer.ts";
import { jobRoutes } from "./routes/jobs.ts";
import { planRoutes } from "./routes/plan.ts";
import { resultRoutes } from "./routes/results.ts";
import { scheduleRoutes } from "./routes/schedules.ts";
import { thumbnailRoutes } from "./routes/thumbnails.ts";
import { JobViews } from "./views.ts";

const BODY_BYTES = 1024 * 1024;
const REQUEST_MS = 30_000;
const HEADERS_MS = 15_000;
const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] as const;

/** Listens until it is closed. Throws KEYS_REQUIRED and ADDRESS_UNAVAILABLE. */
export async function startApi(context: Context): Promise<{ url: string; close(): Promise<void> }> {
  const { host, port } = context.config.api;
  const ring = new KeyRing(context.state);
  if (!isLoopback(host) && !(await ring.any())) {
    throw new CapfleetError(
      "KEYS_REQUIRED",
      `${host} is not this machine alone, and ${context.config.state} has no API keys`,
    );
  }
  const server = await buildServer(context, ring);
  try {
    return { url: await server.listen({ host, port }), close: () => server.close() };
  } catch (thrown) {
    await server.close();
    const { code = "", message } = thrown as NodeJS.ErrnoException;
    throw new CapfleetError("ADDRESS_UNAVAILABLE", `can't listen at ${host}:${port} (${code || message})`, {
      cause: thrown,
    });
  }
}

async function buildServer(context: Context, ring: KeyRing): Promise<Server> {
  const { stores, states, config, log } = context;
  const redis = connectRedis(config.redisUrl!, "steady");
  const views = new JobViews(stores, states, redis);
  const infer = new InferClient(redis);
  const api: Api = { ...context, redis, views, feed: new JobFeed(views), infer };
  const metrics = new Metrics(redis, config.scale);

  const server = fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_BYTES,
    requestTimeout: REQUEST_MS,
    http: { headersTimeout: HEADERS_MS },
    exposeHeadRoutes: false,
    forceCloseConnections: "idle",
    return503OnClosing: false,
    frameworkErrors: (error, request, reply) => answerError(error, request as FastifyRequest, reply as never),
    clientErrorHandler: (error, socket) => refuse(error, socket as Socket),
  }).withTypeProvider() as unknown as Server;
  server.setValidatorCompiler(validatorCompiler);
  server.setSerializerCompiler(serializerCompiler);
  server.removeContentTypeParser("text/plain");
  server.setErrorHandler((error: FastifyError, request, reply) => answerError(error, request, reply));
  server.setNotFoundHandler((request) => {
    throw new CapfleetError("ROUTE_NOT_FOUND", `there is no ${request.url.split("?")[0]!.slice(0, 200)}`);
  });

  const paths = new Set<string>();
  server.addHook("onRoute", ({ url }) => void paths.add(url));
  metrics.watch(server);
  server.addHook("onResponse", async ({ method, routeOptions, caller, ip }, { statusCode: status, elapsedTime }) => {
    const level = method === "GET" && status < 400 ? "debug" : "info";
    // Neither headers nor the query: they may hold what is not for a log.
    log[level](
      { method, route: routeOptions.url, status, ms: Math.round(elapsedTime), key: caller?.key, ip },
      "request",
    );
  });
  await guard(server, new Access(ring, config.api), config.api.rate);
  await describeApi(server);
  jobRoutes(server, api);
  resultRoutes(server, api);
  thumbnailRoutes(server, api);
  inferRoutes(server, api);
  planRoutes(server, api);
  scheduleRoutes(server, api);
  fleetRoutes(server, api);
  healthRoutes(server, api, metrics);
  consoleRoutes(server);
  refuseOtherMethods(server, paths);

  server.addHook("preClose", async () => api.feed.close());
  server.addHook("onClose", async () => {
    await infer.close();
    redis.disconnect();
  });
  await server.ready();
  return server;
}

/** Who it is comes first, so that the limit is the key's; that they may not is said after it, so that guesses are limited. */
async function guard(server: Server, access: Access, rate: number): Promise<void> {
  const denied = new WeakMap<FastifyRequest, unknown>();
  server.decorateRequest("caller", null);
  server.addHook("onRequest", async (request) => {
    if (request.routeOptions.config.scope === null) return;
    try {
      request.caller = await access.callerOf(request);
    } catch (thrown) {
      denied.set(request, thrown);
    }
  });
  await server.register(rateLimit, {
    max: rate,
    timeWindow: 60_000,
    cache: 10_000,
    keyGenerator: ({ caller, ip }) => caller?.key ?? ip,
    allowList: (request) => request.routeOptions.config.scope === null,
    errorResponseBuilder: (_, { after }) =>
      new CapfleetError("RATE_LIMITED", `more than ${rate} requests in a minute; again in ${after}`),
  });
  // The limit is a hook of each route, and comes after those of all.
  server.addHook("preParsing", async (request) => {
    const { scope = "read" } = request.routeOptions.config;
    if (denied.has(request)) throw denied.get(request);
    if (scope !== null) checkScope(request.caller!, scope);
  });
}

/** A path that there is, with a method that it does not take, is told apart from a path that there is not. */
function refuseOtherMethods(server: Server, paths: ReadonlySet<string>): void {
  for (const url of [...paths]) {
    const allowed = METHODS.filter((method) => server.hasRoute({ method, url }));
    const others = METHODS.filter((method) => !allowed.includes(method));
    server.route({
      method: others,
      url,
      schema: { hide: true },
      handler: async ({ method }, reply) => {
        reply.header("allow", allowed.join(", "));
        throw new CapfleetError("METHOD_NOT_ALLOWED", `${url} does not take ${method}; it takes ${allowed.join(", ")}`);
      },
    });
  }
}

/** What is not even HTTP. */
function refuse(error: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable) return void socket.destroy();
  const status = { HPE_HEADER_OVERFLOW: 431, ERR_HTTP_REQUEST_TIMEOUT: 408 }[error.code ?? ""] ?? 400;
  const body = JSON.stringify(
    errorBody(asApiError(new CapfleetError("REQUEST_INVALID", "the request is not HTTP as it should be"))),
  );
  const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, "content-type: application/json", "connection: close"];
  socket.end(`${[...head, `content-length: ${Buffer.byteLength(body)}`].join("\r\n")}\r\n\r\n${body}`);
}

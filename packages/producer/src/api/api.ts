/** What the routes share. */
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import type { Redis } from "ioredis";
import type { Context } from "../cli/context.ts";
import type { InferClient } from "../infer/client.ts";
import type { JobFeed } from "./feed.ts";
import type { JobViews } from "./views.ts";

export interface Api extends Context {
  redis: Redis;
  views: JobViews;
  feed: JobFeed;
  infer: InferClient;
}

export type Server = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  ZodTypeProvider
>;

/** `capfleet serve`: the producer as a daemon. It looks after every job that was submitted to the fleet, and takes jobs over HTTP. */
import { CapfleetError } from "@capfleet/shared/contract";
import { checkRedis, redisAddress } from "@capfleet/shared/queues";
import { startApi } from "../api/server.ts";
import { Reconciler } from "../reconcile/reconciler.ts";
import { Scheduler } from "../schedules/scheduler.ts";
import { WebhookSender } from "../webhooks/sender.ts";
import type { Context } from "./context.ts";

/** Where to listen; what is not given is as the environment says. */
export interface ServeOptions {
  host?: string;
  port?: number;
}

/**
 * Runs until SIGTERM or SIGINT. Throws REDIS_MISSING, REDIS_UNREACHABLE, REDIS_UNSUITABLE, KEYS_REQUIRED or
 * ADDRESS_UNAVAILABLE.
 */
export async function serve(options: ServeOptions, context: Context): Promise<void> {
  const { stores, states, log } = context;
  const config = { ...context.config, api: { ...context.config.api, ...options } };
  const { redisUrl } = config;
  if (!redisUrl) throw new CapfleetError("REDIS_MISSING", "CAPFLEET_REDIS_URL is not set");
  await checkRedis(redisUrl);
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => stop.abort());
  const isMine = ({ runner }: { runner: string }) => runner === "fleet";
  const api = await startApi({ ...context, config });
  log.info({ state: config.state, redis: redisAddress(redisUrl), api: api.url }, "serving");
  const closed = new Promise((resolve) => {
    stop.signal.addEventListener("abort", () => resolve(api.close()), { once: true });
  });
  const scheduler = new Scheduler({ ...context, config });
  await Promise.all([
    new Reconciler({ stores, states, redisUrl, log, isMine, scheduler }).run(stop.signal),
    new WebhookSender({ ...context, config }).run(stop.signal),
    closed,
  ]);
  log.info("stopped");
}

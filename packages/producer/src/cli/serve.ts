/** `capfleet serve`: the producer as a daemon. It looks after every job that was submitted to the fleet. */
import { CapfleetError } from "@capfleet/shared/contract";
import { checkRedis, redisAddress } from "@capfleet/shared/queues";
import { Reconciler } from "../reconcile/reconciler.ts";
import type { Context } from "./context.ts";

/** Runs until SIGTERM or SIGINT. Throws REDIS_MISSING, REDIS_UNREACHABLE or REDIS_UNSUITABLE. */
export async function serve({ config, stores, states, log }: Context): Promise<void> {
  const { redisUrl } = config;
  if (!redisUrl) throw new CapfleetError("REDIS_MISSING", "CAPFLEET_REDIS_URL is not set");
  await checkRedis(redisUrl);
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => stop.abort());
  const isMine = ({ runner }: { runner: string }) => runner === "fleet";
  log.info({ state: config.state, redis: redisAddress(redisUrl) }, "serving");
  await new Reconciler({ stores, states, redisUrl, log, isMine }).run(stop.signal);
  log.info("stopped");
}

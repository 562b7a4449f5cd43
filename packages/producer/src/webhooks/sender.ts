/**
 * Calls webhooks. Level-triggered, as the reconciler is: each round looks at the jobs that somebody waits for; what is to be
 * told is written down before it is told, and tried again with growing pauses for a day. One producer at a time does it; a
 * crash costs at most that a call is made twice, with the same id.
 */
import { asCapfleetError, stateLayout } from "@capfleet/shared/contract";
import type { Logger } from "@capfleet/shared/log";
import { connectRedis, type Progress, readProgress } from "@capfleet/shared/queues";
import type { Store } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { FINAL } from "../api/feed.ts";
import { JobViews } from "../api/views.ts";
import type { Context } from "../cli/context.ts";
import type { JobStates } from "../jobs/states.ts";
import { Lease } from "../reconcile/lease.ts";
import { Caller } from "./call.ts";
import { type Call, putAway, readWebhook, type Webhook } from "./webhook.ts";

const ROUND_MS = 1_000;
/** How often the state of a job is read whose reconciler says nothing. */
const LOOK_MS = 3_000;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 3_600_000;
const GIVEN_UP_AFTER_MS = 24 * 3_600_000;

interface Watched {
  webhook: Webhook;
  etag: string;
  lookAt: number;
  busy: boolean;
}

export class WebhookSender {
  readonly #state: Store;
  readonly #states: JobStates;
  readonly #log: Logger;
  readonly #redis: Redis;
  readonly #lease: Lease;
  readonly #views: JobViews;
  readonly #caller: Caller;
  readonly #watched = new Map<string, Watched>();

  constructor({ state, states, stores, log, config }: Context) {
    this.#state = state;
    this.#states = states;
    this.#log = log;
    this.#redis = connectRedis(config.redisUrl!, "steady");
    this.#lease = new Lease(this.#redis, "webhooks");
    this.#views = new JobViews(stores, states, this.#redis);
    this.#caller = new Caller(config.api.webhookNetworks);
  }

  /** Runs until the signal; never throws. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        if (await this.#lease.hold()) await this.#round();
        else this.#watched.clear();
      } catch (thrown) {
        this.#log.debug({ err: asCapfleetError(thrown).message }, "webhooks");
      }
      await pause(ROUND_MS, signal);
    }
    await this.#lease.release().catch(() => {});
    await this.#caller.close();
    this.#redis.disconnect();
  }

  async #round(): Promise<void> {
    const there = new Set<string>();
    for await (const { key, etag } of this.#state.list({ prefix: stateLayout.webhooks })) {
      const job = /^webhooks\/(.+)\.json$/.exec(key)?.[1];
      if (!job) continue;
      there.add(job);
      const known = this.#watched.get(job);
      if (known?.busy || known?.etag === etag) continue;
      this.#watched.set(job, { ...(await readWebhook(job, this.#state)), lookAt: 0, busy: false });
    }
    for (const [job, watched] of this.#watched) {
      if (!there.has(job)) this.#watched.delete(job);
      else if (!watched.busy) void this.#attend(job, watched);
    }
  }

  /** Notes what has happened to the job, then makes the calls that are due. */
  async #attend(job: string, watched: Watched): Promise<void> {
    watched.busy = true;
    try {
      await this.#note(job, watched);
      const call = watched.webhook.calls.find(({ next }) => Date.parse(next) <= Date.now());
      if (call) await this.#make(job, call, watched);
    } catch (thrown) {
      this.#log.warn({ job, err: asCapfleetError(thrown).message }, "webhook");
    } finally {
      watched.busy = false;
    }
  }

  async #note(job: string, watched: Watched): Promise<void> {
    const { webhook } = watched;
    const live = await readProgress(this.#redis, job);
    if (live && !FINAL.includes(live.state)) return this.#noteBlocked(job, live, watched);
    if (webhook.calls.some(({ type }) => type === "job.ended") || performance.now() < watched.lookAt) return;
    watched.lookAt = performance.now() + LOOK_MS;
    const state = await this.#states.find(job);
    if (!state) await this.#state.delete(stateLayout.webhook(job));
    else if (state.ended) {
      const call = await this.#call(job, "job.ended", `${job}.ended.${state.retries}`);
      await this.#write(job, watched, { ...webhook, calls: [...webhook.calls, call] });
    }
  }

  async #noteBlocked(job: string, { state }: Progress, watched: Watched): Promise<void> {
    const { webhook } = watched;
    const now = state === "blocked";
    if (now === webhook.blocked.now) return;
    const times = webhook.blocked.times + (now ? 1 : 0);
    const calls = now ? [await this.#call(job, "job.blocked", `${job}.blocked.${times}`)] : [];
    await this.#write(job, watched, { ...webhook, blocked: { times, now }, calls: [...webhook.calls, ...calls] });
  }

  async #call(job: string, type: Call["type"], id: string): Promise<Call> {
    const view = await this.#views.view(await this.#views.find(job, null));
    const created = new Date().toISOString();
    return { id: `evt_${id}`, type, job: view, created, attempts: 0, next: created };
  }

  async #make(job: string, call: Call, watched: Watched): Promise<void> {
    const { webhook } = watched;
    const others = webhook.calls.filter(({ id }) => id !== call.id);
    const told = await this.#caller.tell(webhook, call).then(
      () => true,
      (thrown: Error) => {
        // Neither the URL nor the answer: both may hold what is not for a log.
        const err = (thrown as NodeJS.ErrnoException).code ?? thrown.message;
        this.#log.warn({ job, event: call.id, attempt: call.attempts + 1, err }, "a webhook could not be called");
        return false;
      },
    );
    const isGivenUp = !told && Date.now() - Date.parse(call.created) > GIVEN_UP_AFTER_MS;
    if (isGivenUp) this.#log.error({ job, event: call.id }, "a webhook is given up");
    if (told || isGivenUp) {
      if (call.type === "job.ended" && others.length === 0) return putAway(job, webhook, this.#state);
      return this.#write(job, watched, { ...webhook, calls: others });
    }
    const next = new Date(Date.now() + Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** call.attempts)).toISOString();
    const again = { ...call, attempts: call.attempts + 1, next };
    await this.#write(job, watched, { ...webhook, calls: [...others, again] });
  }

  /** Where another producer was quicker, the next round reads what it wrote. */
  async #write(job: string, watched: Watched, webhook: Webhook): Promise<void> {
    const put = await this.#state.putIfMatch(stateLayout.webhook(job), JSON.stringify(webhook), watched.etag);
    if (put.outcome === "written") Object.assign(watched, { webhook, etag: put.etag });
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done, { once: true });
    if (signal.aborted) done();
  });
}

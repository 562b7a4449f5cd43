/** Jobs that clients follow. However many follow a job, it is looked at once per tick; who is slow misses steps, not the end. */
import { CapfleetError } from "@capfleet/shared/contract";
import type { JobView } from "./schemas.ts";
import type { Found, JobViews } from "./views.ts";

const TICK_MS = 500;
const HEARTBEAT_MS = 15_000;
const MAX_FOLLOWERS = 1_000;
export const FINAL: readonly JobView["state"][] = ["finished", "cancelled", "failed"];

/** What a follower is told: how the job is now; the same when it has ended, and nothing after it; or nothing new for a while. */
export type Step = { event: "progress" | "end"; job: JobView } | { event: "heartbeat" };

interface Watched {
  found: Found;
  followers: number;
  latest: JobView | null;
  changed: PromiseWithResolvers<void>;
}

export class JobFeed {
  readonly #views: JobViews;
  readonly #watched = new Map<string, Watched>();
  readonly #closing = new AbortController();
  #followers = 0;

  constructor(views: JobViews) {
    this.#views = views;
  }

  /** Ends what all followers get. */
  close(): void {
    this.#closing.abort();
  }

  /** Until the job has ended, `signal` is aborted, or the feed is closed. Throws TOO_MANY_STREAMS at once. */
  follow(found: Found, signal: AbortSignal): AsyncGenerator<Step> {
    if (this.#followers >= MAX_FOLLOWERS)
      throw new CapfleetError("TOO_MANY_STREAMS", `${MAX_FOLLOWERS} clients follow jobs already`);
    return this.#steps(found, AbortSignal.any([signal, this.#closing.signal]));
  }

  async *#steps(found: Found, signal: AbortSignal): AsyncGenerator<Step> {
    const watched = this.#join(found);
    const gone = aborted(signal);
    let seen: JobView | null = null;
    try {
      while (!signal.aborted) {
        const { latest, changed } = watched;
        if (latest && latest !== seen) {
          seen = latest;
          const ended = FINAL.includes(latest.state);
          yield { event: ended ? "end" : "progress", job: latest };
          if (ended) return;
          continue;
        }
        const idle = Promise.withResolvers<void>();
        const timer = setTimeout(idle.resolve, HEARTBEAT_MS);
        await Promise.race([changed.promise, idle.promise, gone]);
        clearTimeout(timer);
        if (watched.changed === changed && !signal.aborted) yield { event: "heartbeat" };
      }
    } finally {
      this.#leave(watched);
    }
  }

  #join(found: Found): Watched {
    const { id } = found.state;
    this.#followers += 1;
    const known = this.#watched.get(id);
    if (known) {
      known.followers += 1;
      return known;
    }
    const watched: Watched = { found, followers: 1, latest: null, changed: Promise.withResolvers() };
    this.#watched.set(id, watched);
    void this.#watch(watched);
    return watched;
  }

  #leave(watched: Watched): void {
    this.#followers -= 1;
    watched.followers -= 1;
    if (watched.followers === 0) this.#watched.delete(watched.found.state.id);
  }

  async #watch(watched: Watched): Promise<void> {
    while (watched.followers > 0) {
      // A store or Redis that is away for a moment is asked again in the next tick.
      const view = await this.#views.fresh(watched.found).catch(() => null);
      if (view && JSON.stringify(view) !== JSON.stringify(watched.latest)) {
        watched.latest = view;
        watched.changed.resolve();
        watched.changed = Promise.withResolvers();
        if (FINAL.includes(view.state)) return;
      }
      await new Promise((resolve) => setTimeout(resolve, TICK_MS));
    }
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });

/** `<state>/jobs/`: where each job is and what is wanted of it. */
import {
  CapfleetError,
  DEFAULT_MAX_ERROR_RATE,
  type Intent,
  type JobFile,
  type JobState,
  jobStateSchema,
  SCHEMA_VERSION,
  stateLayout,
} from "@capfleet/shared/contract";
import { faultPoint } from "@capfleet/shared/faults";
import type { Store } from "@capfleet/shared/storage";

/** Of a job that nobody has done anything about. */
export function newState({ id, created }: JobFile, out: string, runner: JobState["runner"]): JobState {
  return {
    schema: SCHEMA_VERSION,
    id,
    out,
    created,
    runner,
    checkpoints: null,
    intent: "run",
    retries: 0,
    work: null,
    maxErrorRate: DEFAULT_MAX_ERROR_RATE,
    ended: null,
    reason: null,
  };
}

export class JobStates {
  /** The state root. */
  readonly store: Store;

  constructor(state: Store) {
    this.store = state;
  }

  /** Null where there is no such job. */
  async find(id: string): Promise<JobState | null> {
    return (await this.#read(id))?.job ?? null;
  }

  async create(job: JobState): Promise<void> {
    faultPoint("job.state.before", job.id);
    await this.store.putIfAbsent(stateLayout.job(job.id), JSON.stringify(job));
    faultPoint("job.state.after", job.id);
  }

  /** Every job, oldest first (ids sort by time). */
  async *all(): AsyncGenerator<{ id: string; etag: string }> {
    for await (const { key, etag } of this.store.list({ prefix: stateLayout.jobs })) {
      const id = /^jobs\/(.+)\.json$/.exec(key)?.[1];
      if (id) yield { id, etag };
    }
  }

  /** The ids of the `most` newest jobs older than `before` (null: of all), the newest first. Lists all, reads none. */
  async newest(before: string | null, most: number): Promise<string[]> {
    const ids: string[] = [];
    for await (const { id } of this.all()) {
      if (before !== null && id >= before) break;
      ids.push(id);
      if (ids.length > 2 * most) ids.splice(0, ids.length - most);
    }
    return ids.slice(-most).reverse();
  }

  /**
   * Changes a job with If-Match, as often as somebody else is quicker; `change` may be called again. Throws
   * JOB_NOT_FOUND, or what `change` throws.
   */
  async update(id: string, change: (job: JobState) => JobState): Promise<JobState> {
    for (;;) {
      const found = await this.#read(id);
      if (!found) throw new CapfleetError("JOB_NOT_FOUND", `no job ${id} in ${this.store.uri}`);
      const changed = change(found.job);
      faultPoint("job.state.before", id);
      const put = await this.store.putIfMatch(stateLayout.job(id), JSON.stringify(changed), found.etag);
      faultPoint("job.state.after", id);
      if (put.outcome === "written") return changed;
    }
  }

  /** Throws JOB_NOT_FOUND, or JOB_STATE for a job that has ended. */
  want(id: string, intent: Intent): Promise<JobState> {
    return this.update(id, (job) => {
      if (job.ended) throw new CapfleetError("JOB_STATE", `job ${id} is ${job.ended}`);
      if (job.intent === "cancelled" && intent !== "cancelled") {
        throw new CapfleetError("JOB_STATE", `job ${id} has been cancelled`);
      }
      return { ...job, intent };
    });
  }

  /**
   * Once more for the rows that failed and may succeed, and for what a failed job has left undone. Throws JOB_NOT_FOUND, or
   * JOB_STATE for a job that has not ended or was cancelled.
   */
  retry(id: string, maxErrorRate: number | null): Promise<JobState> {
    return this.update(id, (job) => {
      if (!job.ended) throw new CapfleetError("JOB_STATE", `job ${id} has not ended; retry it when it has`);
      if (job.ended === "cancelled") throw new CapfleetError("JOB_STATE", `job ${id} has been cancelled`);
      const again = { ended: null, reason: null, intent: "run" as const, retries: job.retries + 1 };
      return { ...job, ...again, maxErrorRate: maxErrorRate ?? job.maxErrorRate };
    });
  }

  async delete(id: string): Promise<void> {
    await this.store.delete(stateLayout.job(id));
  }

  async #read(id: string): Promise<{ job: JobState; etag: string } | null> {
    const key = stateLayout.job(id);
    if (!(await this.store.stat(key))) return null;
    const { bytes, etag } = await this.store.read(key);
    return { job: jobStateSchema.parse(JSON.parse(bytes.toString("utf8"))), etag };
  }
}

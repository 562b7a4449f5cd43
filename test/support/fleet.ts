/**
 * One running fleet for a whole test file. Its jobs are made in the test's own process, by the code behind `capfleet submit`;
 * a real producer and a real worker do them. A command and a `capfleet run` for each job would cost four seconds of processor.
 */
import { readConfig } from "@capfleet/shared/config";
import { connectRedis, keys } from "@capfleet/shared/queues";
import { type Store, type Stores, storesFromEnv } from "@capfleet/shared/storage";
import type { Redis } from "ioredis";
import { JobStates } from "../../packages/producer/src/jobs/states.ts";
import { type Sandbox, until } from "./processes.ts";
import { expectWhole } from "./rows.ts";
import { submitHere } from "./submit.ts";

export class TestFleet {
  readonly env: NodeJS.ProcessEnv;
  readonly stores: Stores;
  readonly #sandbox: Sandbox;
  readonly #redis: Redis;
  #jobs = 0;

  private constructor(sandbox: Sandbox, env: NodeJS.ProcessEnv) {
    this.env = env;
    this.stores = storesFromEnv(env);
    this.#sandbox = sandbox;
    this.#redis = connectRedis(env.CAPFLEET_REDIS_URL!, "steady");
    sandbox.atEnd(async () => {
      this.#redis.disconnect();
      this.stores.close();
    });
  }

  /** A Redis, a producer, and one worker with these models. `more` is environment; `options` are the worker's. */
  static async start(
    sandbox: Sandbox,
    models: string[],
    options: string[] = [],
    more: Record<string, string> = {},
  ): Promise<TestFleet> {
    const redis = await sandbox.redis();
    const env = sandbox.env({ ...more, CAPFLEET_REDIS_URL: redis.url });
    sandbox.producer(env);
    sandbox.worker(env, "--models", models.join(","), ...options);
    return new TestFleet(sandbox, env);
  }

  /** Makes a job; `line` is what follows `capfleet submit`. Throws what is wrong with it. */
  async submit(...line: string[]): Promise<{ id: string; store: Store }> {
    const job = await submitHere(this.env, this.stores, line);
    await this.#redis.publish(keys.wake(), job.id);
    return job;
  }

  /** The same, and waits until it has ended; throws unless it has finished. */
  async finish(...line: string[]): Promise<Store> {
    const { id, store } = await this.submit(...line);
    const states = new JobStates(this.stores.at(readConfig(this.env).state));
    const end = async () => {
      const state = await states.find(id);
      return state?.ended ? state : null;
    };
    const { ended, reason } = await until(`${line.join(" ")} to end`, end, 120);
    if (ended !== "finished") throw new Error(`${ended}: ${reason?.code}: ${reason?.message}`);
    return store;
  }

  /** Rows of a job in an output of its own, checked against its records. */
  async rowsOf(task: string, input: string, records: number, ...options: string[]) {
    const out = this.#sandbox.path(`fleet-out-${this.#jobs++}`);
    const store = await this.finish(task, input, "--out", out, ...options);
    return (await expectWhole(store, records)).rows;
  }
}

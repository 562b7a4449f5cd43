/** A lease in Redis: at most one holder, for as long as it keeps renewing. */
import { randomUUID } from "node:crypto";
import { keys } from "@capfleet/shared/queues";
import type { Redis } from "ioredis";

const LEASE_MS = 10_000;
const RENEW = `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("pexpire", KEYS[1], ARGV[2]) end return 0`;
const RELEASE = `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) end return 0`;

export class Lease {
  readonly #redis: Redis;
  readonly #key: string;
  readonly #token = randomUUID();

  constructor(redis: Redis, name: string) {
    this.#redis = redis;
    this.#key = keys.lease(name);
  }

  /** True while this process holds it, or has just taken it. It lasts for 10 s. */
  async hold(): Promise<boolean> {
    if (await this.renew()) return true;
    return (await this.#redis.set(this.#key, this.#token, "PX", LEASE_MS, "NX")) === "OK";
  }

  /** Another 10 s, if it is held still. */
  async renew(): Promise<boolean> {
    return (await this.#redis.eval(RENEW, 1, this.#key, this.#token, LEASE_MS)) === 1;
  }

  async release(): Promise<void> {
    await this.#redis.eval(RELEASE, 1, this.#key, this.#token);
  }
}

/** Tells the fleet every second that this worker lives, and what it has in hand. */
import { asCapfleetError } from "@capfleet/shared/contract";
import type { Logger } from "@capfleet/shared/log";
import { beat, HEARTBEAT_MS, leave, type Presence } from "@capfleet/shared/queues";
import type { Redis } from "ioredis";

/** What saying goodbye to a Redis that is away may take. */
const LEAVE_MS = 1_000;

export class Heart {
  readonly #redis: Redis;
  readonly #presence: () => Presence;
  readonly #log: Logger;
  #beating: NodeJS.Timeout | undefined;
  #isHeard = true;
  #isTelling = false;

  constructor(redis: Redis, presence: () => Presence, log: Logger) {
    this.#redis = redis;
    this.#presence = presence;
    this.#log = log;
  }

  /** Returns after the first beat. What Redis refuses now it may take in a second: that is logged, and no reason to end. */
  async start(): Promise<void> {
    this.#beating = setInterval(() => this.#beat(), HEARTBEAT_MS);
    await this.#beat();
  }

  async stop(): Promise<void> {
    clearInterval(this.#beating);
    const left = leave(this.#redis, this.#presence().id).catch(() => {});
    await Promise.race([left, new Promise((resolve) => setTimeout(resolve, LEAVE_MS))]);
  }

  async #beat(): Promise<void> {
    // To a Redis that is away the command waits; one is enough.
    if (this.#isTelling) return;
    this.#isTelling = true;
    try {
      await beat(this.#redis, this.#presence());
      this.#isHeard = true;
    } catch (thrown) {
      const { code, message } = asCapfleetError(thrown);
      if (this.#isHeard) this.#log.warn({ code, err: message }, "no heartbeat");
      this.#isHeard = false;
    } finally {
      this.#isTelling = false;
    }
  }
}

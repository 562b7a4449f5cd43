/** One call of a webhook. */
import { createHmac } from "node:crypto";
import { CAPFLEET_VERSION } from "@capfleet/shared/contract";
import { checkedLookup, parseNetwork } from "@capfleet/shared/storage";
import { Agent, request } from "undici";
import { type Call, checkWebhook, type Webhook } from "./webhook.ts";

const CONNECT_MS = 5_000;
const ANSWER_MS = 10_000;

export class Caller {
  readonly #networks: readonly string[];
  readonly #agent: Agent;

  constructor(networks: readonly string[]) {
    this.#networks = networks;
    const lookup = checkedLookup(networks.map(parseNetwork));
    this.#agent = new Agent({
      connect: { lookup, timeout: CONNECT_MS },
      headersTimeout: ANSWER_MS,
      bodyTimeout: ANSWER_MS,
      maxResponseSize: 65_536,
    });
  }

  /** Throws where the answer is not a 2xx: redirects are not followed. */
  async tell({ url, secret }: Pick<Webhook, "url" | "secret">, { id, type, created, job }: Call): Promise<void> {
    checkWebhook(url, this.#networks);
    const body = JSON.stringify({ id, type, created_at: created, job });
    const timestamp = String(Math.floor(Date.now() / 1_000));
    const headers = {
      "content-type": "application/json",
      "user-agent": `capfleet/${CAPFLEET_VERSION}`,
      "capfleet-timestamp": timestamp,
      ...(secret !== null && { "capfleet-signature": `sha256=${signatureOf(secret, timestamp, body)}` }),
    };
    const answer = await request(url, { method: "POST", headers, body, dispatcher: this.#agent });
    await answer.body.dump();
    if (answer.statusCode < 200 || answer.statusCode > 299) throw new Error(`it answered ${answer.statusCode}`);
  }

  close(): Promise<void> {
    return this.#agent.destroy();
  }
}

/** Hexadecimal HMAC-SHA256 of `<timestamp>.<body>`. */
const signatureOf = (secret: string, timestamp: string, body: string) =>
  createHmac("sha256", secret).update(`${timestamp}.${body}`).digest("hex");

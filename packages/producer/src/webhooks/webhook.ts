/**
 * `<state>/webhooks/<job>.json`: whom to call when a job ends or is blocked, and the calls that are still to be made. When
 * the end has been told it moves to `webhooks-told/`, so that nobody ever lists those of jobs long gone.
 */
import { CapfleetError, stateLayout } from "@capfleet/shared/contract";
import { mayName, parseNetwork, type Store } from "@capfleet/shared/storage";
import * as z from "zod";
import { jobSchema } from "../api/schemas.ts";

export const EVENTS = ["job.ended", "job.blocked"] as const;

const callSchema = z.object({
  /** The same for every attempt, whoever makes it. */
  id: z.string(),
  type: z.enum(EVENTS),
  /** As it was when the event was seen; an older version knew no cost. */
  job: jobSchema.extend({ cost: jobSchema.shape.cost.default(null) }),
  created: z.iso.datetime(),
  attempts: z.int(),
  /** Not before. */
  next: z.iso.datetime(),
});
export type Call = z.infer<typeof callSchema>;

export const targetSchema = z.object({ url: z.string(), secret: z.string().nullable() });
export type Target = z.infer<typeof targetSchema>;

export const webhookSchema = targetSchema.extend({
  /** How often the job has been blocked, and whether it was so when it was last looked at. */
  blocked: z.object({ times: z.int(), now: z.boolean() }),
  calls: z.array(callSchema),
});
export type Webhook = z.infer<typeof webhookSchema>;

/** Throws WEBHOOK_FORBIDDEN. Names are looked up, and their addresses judged, when the call is made. */
export function checkWebhook(text: string, networks: readonly string[]): void {
  const url = URL.parse(text);
  if (url?.protocol !== "https:") throw forbidden("the webhook's URL is not https://");
  if (url.username !== "" || url.password !== "") throw forbidden("the webhook's URL has credentials in it");
  if (!mayName(url.hostname, networks.map(parseNetwork))) {
    throw forbidden(`the webhook's host ${url.hostname} is not a public address`);
  }
}

/** From now on the job's events are told. Safe to repeat: what is still to be told stays. */
export async function addWebhook(job: string, { url, secret }: Target, state: Store) {
  const webhook: Webhook = { url, secret, blocked: { times: 0, now: false }, calls: [] };
  await state.putIfAbsent(stateLayout.webhook(job), JSON.stringify(webhook));
}

export async function readWebhook(job: string, state: Store): Promise<{ webhook: Webhook; etag: string }> {
  const { bytes, etag } = await state.read(stateLayout.webhook(job));
  return { webhook: webhookSchema.parse(JSON.parse(bytes.toString("utf8"))), etag };
}

/** Dying in between leaves both: the end is told once more, with the same id. */
export async function putAway(job: string, webhook: Webhook, state: Store): Promise<void> {
  await state.put(stateLayout.toldWebhook(job), JSON.stringify({ ...webhook, calls: [] }));
  await state.delete(stateLayout.webhook(job));
}

/** Of a job that ends once more. */
export async function takeUpAgain(job: string, state: Store): Promise<void> {
  const told = stateLayout.toldWebhook(job);
  if (!(await state.stat(told))) return;
  const { bytes } = await state.read(told);
  await state.putIfAbsent(stateLayout.webhook(job), bytes);
  await state.delete(told);
}

const forbidden = (message: string) => new CapfleetError("WEBHOOK_FORBIDDEN", message);

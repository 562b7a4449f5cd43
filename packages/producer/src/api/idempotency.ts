/**
 * Requests that say who they are (Idempotency-Key): sent again, they get the answer's job again, and a key that comes with
 * another body is refused. `<state>/idempotency/<digest>.json` is written before the job and completed after it. A producer
 * that dies in between leaves a request without a job: sent again, it makes the job, or finds it in its output.
 */
import { createHash } from "node:crypto";
import { CapfleetError, stateLayout } from "@capfleet/shared/contract";
import type { Store } from "@capfleet/shared/storage";
import * as z from "zod";

const seenSchema = z.object({
  /** Of the request's body. */
  digest: z.string(),
  job: z.string().nullable(),
  isNew: z.boolean().default(true),
  created: z.iso.datetime(),
});

export interface Submitted {
  /** Its id. */
  job: string;
  /** False: there was nothing to do, and it is the one that has done it. */
  isNew: boolean;
}

export interface Identified {
  /** The caller's Idempotency-Key; null where there is none. */
  key: string | null;
  /** Two callers may choose the same. */
  caller: string;
  body: unknown;
}

/** The job that `submit` makes, or the one that it made before. Throws IDEMPOTENCY_CONFLICT. */
export async function once(
  { key, caller, body }: Identified,
  state: Store,
  submit: () => Promise<Submitted>,
): Promise<Submitted> {
  if (key === null) return submit();
  const name = stateLayout.idempotency(digestOf([caller, key]));
  const mine = { digest: digestOf(sorted(body)), job: null, created: new Date().toISOString() };
  const { outcome } = await state.putIfAbsent(name, JSON.stringify(mine));
  if (outcome === "exists") {
    const { digest, job, isNew } = seenSchema.parse(JSON.parse((await state.read(name)).bytes.toString("utf8")));
    if (digest !== mine.digest)
      throw new CapfleetError(
        "IDEMPOTENCY_CONFLICT",
        "the Idempotency-Key has been used for a request with another body",
      );
    if (job !== null) return { job, isNew };
  }
  try {
    const submitted = await submit();
    await state.put(name, JSON.stringify({ ...mine, ...submitted }));
    return submitted;
  } catch (thrown) {
    // A request that was refused made nothing, and may be mended.
    if (outcome === "written") await state.delete(name).catch(() => {});
    throw thrown;
  }
}

const digestOf = (value: unknown) => createHash("sha256").update(JSON.stringify(value)).digest("hex");

/** The same fields in another order are the same request. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, each]) => [name, sorted(each)]);
}

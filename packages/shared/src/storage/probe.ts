/** Whether a store keeps the promises that the interface makes about conditional writes: for `capfleet doctor`. */
import { randomUUID } from "node:crypto";
import { S3Store } from "./s3.ts";
import type { Store } from "./store.ts";

/**
 * True where `putIfAbsent` and `putIfMatch` are atomic in the store. Some S3 servers refuse the conditions or ignore them;
 * there, of two writers at the same moment, the last one wins. Writes and deletes one object, `.capfleet-probe-<uuid>`.
 */
export async function probeConditionalWrites(store: Store): Promise<boolean> {
  const key = `.capfleet-probe-${randomUUID()}`;
  try {
    const first = await store.putIfAbsent(key, "1");
    const second = await store.putIfAbsent(key, "2");
    const third = await store.putIfMatch(key, "3", "0123456789abcdef0123456789abcdef");
    const isAsked = !(store instanceof S3Store) || store.hasConditionalWrites;
    return isAsked && first.outcome === "written" && second.outcome === "exists" && third.outcome === "changed";
  } finally {
    await store.delete(key);
  }
}
